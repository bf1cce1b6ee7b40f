/**
 * What stands around the body of a row kernel: bindings, reductions over the lanes of a row, the sources of row losses made to
 * fit together, and the entry point that skips masked rows.
 *
 * @module
 */
import { helperFunctions, literal } from "../../tensor/expr/mod.ts";
import { EMPTY_TAIL } from "../sparse_target.ts";
import type { CachedTarget } from "./cached_target.ts";
import { reductions } from "./reductions.ts";
import { rowLossSource, rowMemory } from "./row_loss_source.ts";
import type { RowScope } from "./scope.ts";

/**
 * The whole source of a row kernel.
 *
 * @param body Statements of the entry point for a row that is not masked
 */
export function printFrame(
  scope: RowScope,
  cached: CachedTarget | undefined,
  body: readonly string[],
): string {
  // The library may name further step scalars, which the head declares.
  const library = printLibrary(scope, cached);
  const helpers = helperFunctions(scope.helpers);
  return [printHead(scope, cached), helpers, library, printMain(scope, cached, body)].join("\n");
}

/** What a kernel binds of a cached target: name, shape, element type. */
function cacheBindings(cached: CachedTarget | undefined): [string, string, string][] {
  if (!cached) return [];
  const { kind, entries, temperatures } = cached.target;
  const bindings: [string, string, string][] = [["target_ids", `u32 [R, ${entries}]`, "u32"]];
  if (!cached.isCompared) return bindings;
  bindings.push(["target_logits", `f32 [R, ${entries}]`, "f32"]);
  if (kind === "top-k") bindings.push(["target_tails", `f32 [R, ${temperatures.length}]`, "f32"]);
  return bindings;
}

function printHead(scope: RowScope, cached: CachedTarget | undefined): string {
  const { terms, traced, layout, gradient, needsTeacher, scalars } = scope;
  const ofCache = cacheBindings(cached);
  const memory = rowMemory(traced).perEntry;
  const row = layout.vector ? "array<vec4<f32>>" : "array<f32>";
  const shapes = [
    traced.tokenMasks ? "labels         i32 [R], -100: none" : "labels         i32 [R], -100: masked",
    ...(traced.tokenMasks ? ["token_masks    i32 [R], bit m: the row is in mask m"] : []),
    ...(needsTeacher ? ["teacher_logits f32 [R, teacher_stride]"] : []),
    ...ofCache.map(([name, shape]) => `${name.padEnd(14)} ${shape}`),
    `student_logits f32 [R, V]${
      gradient ? ", overwritten with the gradient of the weighted sum of losses" : ""
    }`,
    "row_values     f32 [K, R], unweighted",
    ...(memory > 0 ? [`row_memory     u32 [groups, ${memory} V], of no meaning before and after`] : []),
  ];
  const storage = [
    ["labels", "read", "array<i32>"],
    ...(traced.tokenMasks ? [["token_masks", "read", "array<i32>"]] : []),
    ...(needsTeacher ? [["teacher_logits", "read", row]] : []),
    ...ofCache.map(([name, , type]) => [name, "read", `array<${type}>`]),
    ["student_logits", gradient || cached ? "read_write" : "read", row],
    ["row_values", "read_write", "array<f32>"],
    ...(memory > 0 ? [["row_memory", "read_write", "array<u32>"]] : []),
  ];
  return [
    `// ${
      terms.map((t) => t.loss.id).join(" + ") || "What others than the K weigh"
    } of each row of logits, one workgroup a row.`,
    "//",
    ...shapes.map((s) => `// ${s}`),
    "struct Size {",
    "  rows: u32, vocabulary: u32, teacher_stride: u32, value_stride: u32, // rows: the end of those done",
    "  first_row: u32,",
    ...scalars.map((name, i) => `  scalar${i}: u32, // ${name}`),
    "}",
    ...storage.map(([name, access, type], i) =>
      `@group(0) @binding(${i}) var<storage, ${access}> ${name}: ${type};`
    ),
    "@group(1) @binding(0) var<uniform> size: Size;",
    "@group(1) @binding(1) var<uniform> step: array<vec4<f32>, 64>;",
  ].join("\n");
}

function printLibrary(scope: RowScope, cached: CachedTarget | undefined): string {
  const { traced, layout, family, needsTeacher } = scope;
  const memory = rowMemory(traced);
  const at = (buffer: string, base: string) =>
    layout.vector ? `${buffer}[${base} + v / 4u][v % 4u]` : `${buffer}[${base} + v]`;
  const lines = [
    `const LANES = ${layout.lanes}u;`,
    "var<private> lane: u32;",
    "var<private> row_label: u32;",
    "var<private> row_vocabulary: u32;",
    "var<private> student_row: u32;",
    "fn step_scalar(i: u32) -> f32 { return step[i / 4u][i % 4u]; }",
    "fn is_broken(x: f32) -> bool { return (bitcast<u32>(x) & 0x7f800000u) == 0x7f800000u; }",
    `fn student(v: u32) -> f32 { return ${at("student_logits", "student_row")}; }`,
  ];
  const wide = traced.rowLosses.length > 0;
  if (wide) lines.push(fourEntries("student", layout.vector));
  if (needsTeacher) {
    if (wide) lines.push(fourEntries("teacher", layout.vector));
    lines.push(
      "var<private> teacher_row: u32;",
      `fn teacher(v: u32) -> f32 { return ${at("teacher_logits", "teacher_row")}; }`,
    );
  }
  if (cached) lines.push(...cacheLibrary(scope, cached));
  lines.push(reductions(family, layout.lanes));
  if (memory.perEntry > 0) {
    lines.push(
      "var<private> memory_row: u32;",
      `var<workgroup> row_shared: array<u32, ${memory.workgroup}>;`,
      "fn row_barrier() {",
      "  storageBarrier();",
      "  workgroupBarrier();",
      "}",
    );
  }
  if (traced.rowLosses.length > 0) {
    lines.push("var<private> row_m_q: f32;", "var<private> row_m_p: f32;");
    traced.groups.forEach((_, g) =>
      lines.push(`var<private> row_l_q${g}: f32;`, `var<private> row_l_p${g}: f32;`)
    );
    for (const { term } of traced.rowLosses) {
      lines.push(rowLossSource(term, traced, (name) => scope.readScalar(name)));
    }
  }
  return lines.join("\n");
}

/** What a kernel with a cached target does with an entry of it. */
function cacheLibrary({ traced, layout }: RowScope, { target, isCompared }: CachedTarget): string[] {
  const { kind, entries, temperatures } = target;
  const [owner, place] = layout.vector
    ? ["v / 4u", "student_row + v / 4u][v % 4u"]
    : ["v", "student_row + v"];
  const lines = [
    `const SUPPORT = ${entries}u;`,
    "var<private> support_row: u32;",
    `var<workgroup> support_logits: array<f32, ${entries}>;`,
    "fn support_id(k: u32) -> u32 { return target_ids[support_row * SUPPORT + k]; }",
    // Whether it is this lane that reads and writes the entry in every sweep.
    `fn owns(v: u32) -> bool { return (${owner}) % LANES == lane; }`,
    `fn put_student(v: u32, x: f32) { student_logits[${place}] = x; }`,
    "fn tail_of(shift: f32, sum: f32) -> f32 {",
    `  if (sum == 0.0) { return ${literal(EMPTY_TAIL)}; }`,
    "  return shift + log(sum);",
    "}",
  ];
  if (!isCompared) return lines;
  lines.push("fn support_target(k: u32) -> f32 { return target_logits[support_row * SUPPORT + k]; }");
  traced.groups.forEach(({ temperature }, g) => {
    const column = temperatures.indexOf(temperature);
    if (kind === "samples" || column < 0) return;
    const at = `support_row * ${temperatures.length}u + ${column}u`;
    lines.push(`fn support_tail${g}() -> f32 { return target_tails[${at}]; }`);
  });
  return lines;
}

/** `student4` or `teacher4`: four entries of a row; those beyond it are as low as a logit can be. */
function fourEntries(side: "student" | "teacher", vector: boolean): string {
  const entry = (c: number) => `select(-3.0e38, ${side}(min(4u * i + ${c}u, last)), 4u * i + ${c}u <= last)`;
  const code = vector ? `return ${side}_logits[${side}_row + i];` : `let last = row_vocabulary - 1u;
  return vec4<f32>(${[0, 1, 2, 3].map(entry).join(", ")});`;
  return `fn ${side}4(i: u32) -> vec4<f32> {\n  ${code}\n}`;
}

function printMain(scope: RowScope, cached: CachedTarget | undefined, body: readonly string[]): string {
  const { terms, traced, layout, gradient, needsTeacher, scalars } = scope;
  const memory = rowMemory(traced).perEntry;
  const values = traced.values.size + traced.rowLosses.length;
  const { lanes, unroll, vector, span } = layout;
  const width = vector ? " / 4u" : "";
  const zeroGradient = `
    for (var v = lane; v < size.vocabulary${width}; v += LANES) {
      student_logits[student_row + v] = ${vector ? "vec4<f32>()" : "0.0"};
    }`;
  const lines = [
    ...scalars.map((_, i) => `var scalar${i} = step_scalar(size.scalar${i});`),
    `let turns = size.vocabulary / ${span}u;`,
    `let vectors = (size.vocabulary + ${span / unroll - 1}u) / ${span / unroll}u;`,
    ...body,
  ];
  // Bits of the masks that some loss here counts by; a row in none of them is skipped.
  const wanted = terms.reduce((bits, t) => (bits | (1 << (t.tokenMask ?? 0))) >>> 0, 0);
  const skipped = traced.tokenMasks
    ? `let token_mask = u32(token_masks[row]) & ${wanted}u;\n  if (token_mask == 0u) {`
    : "if (label == -100) {";
  return `
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) invocation: u32) {
  let place = group.x + group.y * groups.x;
  let row = size.first_row + place;
  if (row >= size.rows) { return; }
  lane = invocation;
  row_vocabulary = size.vocabulary;
  student_row = row * (size.vocabulary${width});${
    needsTeacher ? `\n  teacher_row = row * (size.teacher_stride${width});` : ""
  }${cached ? "\n  support_row = row;" : ""}${
    memory > 0 ? `\n  memory_row = place * (${memory}u * size.vocabulary);` : ""
  }
  let label = labels[row];
  ${skipped}${gradient ? zeroGradient : ""}
    if (lane == 0u) {
      for (var k = 0u; k < ${values}u; k++) { row_values[k * size.value_stride + row] = 0.0; }
    }
    return;
  }
  row_label = min(u32(max(label, 0)), size.vocabulary - 1u);
${lines.map((line) => `  ${line}`).join("\n")}
}
`;
}
