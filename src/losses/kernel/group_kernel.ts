/**
 * Prints the kernel of a loss over groups of tokens: one workgroup a group, with a row of logits of either vocabulary.
 *
 * Both softmaxes first, then the loss's value and slope, then the gradient over the learner's logits.
 *
 * @module
 */
import type { DeviceDescription } from "../../gpu/description.ts";
import { literal } from "../../tensor/expr/mod.ts";
import { LOG_FLOOR } from "../contract.ts";
import { APART, type GroupLoss } from "../group_contract.ts";
import { reductions } from "./reductions.ts";

/** What a kernel is printed for. */
export interface GroupKernelShape {
  /** Entries of a learner's row, V, and of a target's, W. */
  readonly vocabulary: number;
  readonly teacherVocabulary: number;
}

/**
 * Entries that each of eight lanes takes in a turn: Mesa's software driver, for which they are, ends all loops of a thread after 65,535 turns
 * together. Many lanes need no more than one.
 */
const UNROLL = 8;

/** NaN. The sum keeps compilers from folding it. */
const NAN = "bitcast<f32>(0x7fc00000u + (size.rows & 0u))";

/** Prints the kernel; `gradient: false` leaves the learner's logits alone and writes the value alone. */
export function printGroupKernel(
  loss: GroupLoss,
  options: Readonly<Record<string, unknown>>,
  device: DeviceDescription,
  gradient: boolean,
): string {
  const { memory, needsMatch = false } = loss;
  const subgroup = device.family === "subgroup8";
  let lanes = subgroup ? 8 : 256;
  while (lanes > device.maxInvocations) lanes /= 2;
  const storage = [
    ["labels", "read", "array<i32>"],
    ["student_scales", "read", "array<f32>"],
    ["teacher_scales", "read", "array<f32>"],
    ...(needsMatch ? [["token_match", "read", "array<i32>"]] : []),
    ["teacher_logits", "read", "array<f32>"],
    ["student_logits", gradient ? "read_write" : "read", "array<f32>"],
    ["row_values", "read_write", "array<f32>"],
    ...(memory ? [["row_memory", "read_write", "array<u32>"]] : []),
  ];
  const own = loss.wgsl({ options }).replaceAll("$", "loss_");
  return [
    `// ${loss.id} of each group of tokens, one workgroup a group.`,
    "//",
    "// labels         i32 [R], the learner's token of rows that are no groups, with a bit where it is apart; -100: masked",
    "// scales         f32 [R], logarithms of what a row of the learner or target is multiplied by",
    ...(needsMatch ? ["// token_match    i32 [V + W], the token of the other vocabulary, or -1"] : []),
    "// teacher_logits f32 [R, W]",
    `// student_logits f32 [R, V]${gradient ? ", overwritten with the gradient of the weighted loss" : ""}`,
    `// row_values     f32 [${gradient ? 2 : 1}, R]: the loss${
      gradient ? ", and its slope" : ""
    }, unweighted`,
    ...(memory ? [`// row_memory     u32 [groups, ${memory.perEntry} max(V, W)]`] : []),
    "struct Size {",
    "  rows: u32, first_row: u32, value_stride: u32, vocabulary: u32, teacher_vocabulary: u32,",
    "  matched: u32, weight: u32, temperature: u32,",
    "}",
    ...storage.map(([name, access, type], i) =>
      `@group(0) @binding(${i}) var<storage, ${access}> ${name}: ${type};`
    ),
    "@group(1) @binding(0) var<uniform> size: Size;",
    "@group(1) @binding(1) var<uniform> step: array<vec4<f32>, 64>;",
    `const LANES = ${lanes}u;`,
    LIBRARY,
    reductions(device.family, lanes),
    "fn row_barrier() {",
    "  storageBarrier();",
    "  workgroupBarrier();",
    "}",
    ...(needsMatch ? [MATCHES] : []),
    ...(memory ? [memoryFunctions(memory.perEntry, memory.workgroup)] : []),
    own,
    softmaxOf(lanes, "student", "row_vocabulary"),
    softmaxOf(lanes, "teacher", "row_teacher_vocabulary"),
    main(lanes, memory?.perEntry ?? 0, gradient, subgroup),
  ].join("\n");
}

const LIBRARY = `var<private> lane: u32;
var<private> row_vocabulary: u32;
var<private> row_teacher_vocabulary: u32;
var<private> row_matched: u32;
var<private> row_label: u32;
var<private> row_is_apart: bool;
var<private> student_row: u32;
var<private> teacher_row: u32;
var<private> row_temperature: f32;
var<private> student_scale: f32;
var<private> teacher_scale: f32;
// Largest logit, and log sum exp((z - m) / temperature).
var<private> student_softmax: vec2<f32>;
var<private> teacher_softmax: vec2<f32>;
fn step_scalar(i: u32) -> f32 { return step[i / 4u][i % 4u]; }
fn is_broken(x: f32) -> bool { return (bitcast<u32>(x) & 0x7f800000u) == 0x7f800000u; }
fn student(v: u32) -> f32 { return student_logits[student_row + v]; }
fn teacher(w: u32) -> f32 { return teacher_logits[teacher_row + w]; }
fn log_probability(z: f32, sums: vec2<f32>) -> f32 {
  return max((z - sums.x) / row_temperature - sums.y, ${literal(LOG_FLOOR)});
}
fn loss_temperature() -> f32 { return row_temperature; }
fn loss_logQ(z: f32) -> f32 { return log_probability(z, student_softmax); }
fn loss_logU(z: f32) -> f32 { return log_probability(z, student_softmax) + student_scale; }
fn loss_logV(z: f32) -> f32 { return log_probability(z, teacher_softmax) + teacher_scale; }`;

const MATCHES = `fn teacher_of(v: u32) -> i32 { return token_match[v]; }
fn student_of(w: u32) -> i32 { return token_match[row_vocabulary + w]; }`;

function memoryFunctions(perEntry: number, workgroup: number): string {
  return `var<private> memory_row: u32;
var<workgroup> row_shared: array<u32, ${workgroup}>;
// ${perEntry} words an entry of the longer row.
fn loss_load(i: u32) -> u32 { return row_memory[memory_row + i]; }
fn loss_store(i: u32, x: u32) { row_memory[memory_row + i] = x; }`;
}

/** A loop over the entries of a row; `body` wants the entry, which may be one too many. */
function sweep(lanes: number, count: string, body: (v: string) => string, after = ""): string {
  const unroll = lanes <= 8 ? UNROLL : 1;
  return `  for (var first = lane; first < ${count}; first += ${unroll}u * LANES) {
${Array.from({ length: unroll }, (_, u) => `    ${body(`first + ${u}u * LANES`)}`).join("\n")}${after}
  }`;
}

function softmaxOf(lanes: number, side: "student" | "teacher", count: string): string {
  return `fn ${side}_high(v: u32) -> f32 {
  if (v >= ${count}) { return -3.0e38; }
  return ${side}(v);
}
fn ${side}_exp(v: u32, high: f32) -> f32 {
  if (v >= ${count}) { return 0.0; }
  return exp((${side}(v) - high) / row_temperature);
}
fn ${side}_softmax_of_row() -> vec2<f32> {
  var high = -3.0e38;
${sweep(lanes, count, (v) => `high = max(high, ${side}_high(${v}));`)}
  high = row_max(high);
  var sum = 0.0;
  var part = 0.0;
${sweep(lanes, count, (v) => `part += ${side}_exp(${v}, high);`, "\n    sum += part;\n    part = 0.0;")}
  return vec2<f32>(high, log(row_sum(sum)));
}`;
}

function main(lanes: number, perEntry: number, gradient: boolean, mayRunOut: boolean): string {
  const memory = perEntry === 0
    ? ""
    : `\n  memory_row = place * (${perEntry}u * max(size.vocabulary, size.teacher_vocabulary));`;
  const zeros = gradient
    ? `\n    for (var v = lane; v < size.vocabulary; v += LANES) { student_logits[student_row + v] = 0.0; }`
    : "";
  const write = (value: string, slope: string) =>
    `if (lane == 0u) {
    row_values[row] = ${value};${gradient ? `\n    row_values[size.value_stride + row] = ${slope};` : ""}
  }`;
  const store = gradient
    ? `
  var weight = step_scalar(size.weight);
  weight += poison;
  row_barrier();
${sweep(lanes, "size.vocabulary", (v) => `put_gradient(${v}, weight);`)}`
    : "";
  const finish = mayRunOut
    ? `// A loop that has its second turn tells that no loop before it was ended: else the values stay NaN. Its bound depends on the row:
  // where one is plainly a uniform, the driver compiles a long kernel again at every launch.
  for (var turn = 0u; turn < 1u + min(size.rows - row, 1u); turn++) {
    if (turn == 1u) {
      ${write("value + poison", "slope + poison")}
    }
  }`
    : write("value + poison", "slope + poison");
  const put = gradient
    ? `fn put_gradient(v: u32, weight: f32) {
  if (v >= row_vocabulary) { return; }
  student_logits[student_row + v] = weight * loss_gradient(v, student(v));
}
`
    : "";
  return `${put}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) invocation: u32) {
  let place = group.x + group.y * groups.x;
  let row = size.first_row + place;
  if (row >= size.rows) { return; }
  lane = invocation;
  row_vocabulary = size.vocabulary;
  row_teacher_vocabulary = size.teacher_vocabulary;
  row_matched = size.matched;
  student_row = row * size.vocabulary;
  teacher_row = row * size.teacher_vocabulary;${memory}
  if (labels[row] == -100) {${zeros}
    ${write("0.0", "0.0")}
    return;
  }
  row_label = u32(labels[row]) & ${APART - 1}u;
  row_is_apart = (labels[row] & ${APART}) != 0;
  ${write(NAN, NAN)}
  row_temperature = step_scalar(size.temperature);
  student_scale = student_scales[row];
  teacher_scale = teacher_scales[row];
  student_softmax = student_softmax_of_row();
  teacher_softmax = teacher_softmax_of_row();
  var poison = 0.0;
  if (is_broken(student_softmax.y)) { poison = student_softmax.y; }
  if (is_broken(teacher_softmax.y)) { poison = teacher_softmax.y; }
  if (is_broken(student_scale)) { poison = student_scale; }
  if (is_broken(teacher_scale)) { poison = teacher_scale; }
  if (is_broken(poison)) { poison = ${NAN}; }
  let value = loss_value();${gradient ? "\n  let slope = loss_slope();" : ""}${store}
  ${finish}
}
`;
}
