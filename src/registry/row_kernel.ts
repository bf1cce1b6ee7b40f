/**
 * Prints the kernel of an objective's losses over rows of logits.
 *
 * One workgroup a row. Sweep 0 finds maxima and sums of exponentials of both models together (online softmax, Milakov and
 * Gimelshein, arXiv 1805.02867), one sum for each temperature. Each later sweep computes the statistics that the one before
 * made possible; the last one also writes the gradient over the learner's logits. Sums are kept for blocks of turns, then for
 * lanes, then added across lanes in a fixed order.
 *
 * @module
 */
import type { AdapterDescription } from "../gpu/description.ts";
import {
  type Expression,
  helperFunctions,
  type LeafCode,
  leaves,
  literal,
  type PrintedExpressions,
  printWgsl,
} from "../tensor/expr/mod.ts";
import type { ResolvedLoss, RowLossShape, TracedObjective } from "./divergence.ts";
import { LOG_FLOOR, type RowLoss } from "./loss_contract.ts";
import { reductions, rowLossSource } from "./row_kernel_library.ts";
import { ENTRY, ROW, type Statistic } from "./row_program.ts";

/** What {@linkcode printRowKernel} returns. */
export interface PrintedRowKernel {
  readonly wgsl: string;
  readonly scalars: readonly string[];
  readonly needsTeacher: boolean;
}

/** Turns whose sums are added up before they go into the sum of the lane. */
const BLOCK = 32;

/** How a kernel goes over a row. */
interface Layout {
  readonly lanes: number;
  /** Vectors of four entries that a lane handles in one turn of the main loop. */
  readonly unroll: number;
  /** Rows begin at multiples of four entries, so they are read as vec4. */
  readonly vector: boolean;
  /** There is at least one turn of the main loop. */
  readonly whole: boolean;
  /** What the main loop leaves is done a vector at a time, and the last one may go beyond the row. */
  readonly rest: boolean;
}

/** One pass through the code of a loop: the main loop's whole vectors, or one vector that may go beyond the row. */
interface Turn {
  readonly unroll: number;
  readonly masked: boolean;
}

function layoutFor(shape: RowLossShape, adapter: AdapterDescription): Layout {
  const { vocabulary, paddedTeacherVocabulary = vocabulary } = shape;
  const subgroup = adapter.family === "subgroup8";
  let lanes = subgroup ? 8 : 256;
  while (lanes > adapter.maxInvocations) lanes /= 2;
  const unroll = subgroup ? 4 : 1;
  const vector = vocabulary % 4 === 0 && paddedTeacherVocabulary % 4 === 0;
  const span = 4 * lanes * unroll;
  return { lanes, unroll, vector, whole: vocabulary >= span, rest: vocabulary % span !== 0 };
}

/** Prints the kernel. `gradient: false` leaves the learner's logits alone. */
export function printRowKernel(
  terms: readonly ResolvedLoss[],
  traced: TracedObjective,
  shape: RowLossShape,
  adapter: AdapterDescription,
  gradient: boolean,
): PrintedRowKernel {
  return new Printer(terms, traced, layoutFor(shape, adapter), adapter, gradient).print();
}

class Printer {
  readonly #terms: readonly ResolvedLoss[];
  readonly #traced: TracedObjective;
  readonly #layout: Layout;
  readonly #adapter: AdapterDescription;
  readonly #gradient: boolean;
  readonly #scalars: string[] = [];
  readonly #helpers = new Set<string>();
  readonly #lines: string[] = [];
  #prints = 0;
  /** Statistics that values or gradient need. */
  readonly #needed: readonly Statistic[];
  /** Leaves that occur anywhere. */
  readonly #used: ReadonlySet<string>;
  readonly #needsTeacher: boolean;

  constructor(
    terms: readonly ResolvedLoss[],
    traced: TracedObjective,
    layout: Layout,
    adapter: AdapterDescription,
    gradient: boolean,
  ) {
    [this.#terms, this.#traced, this.#layout] = [terms, traced, layout];
    [this.#adapter, this.#gradient] = [adapter, gradient];
    const roots = [...traced.values.values(), ...(gradient ? [traced.gradient] : [])];
    this.#needed = reachable(roots, traced.statistics);
    this.#used = new Set(leaves([...roots, ...this.#needed.map((s) => s.body)], "variable"));
    this.#needsTeacher = this.#used.has(ENTRY.teacher) ||
      traced.groups.some((_, g) => this.#used.has(ENTRY.logP(g))) ||
      traced.rowLosses.some(({ term }) => (term.loss as RowLoss).needsTeacher);
  }

  print(): PrintedRowKernel {
    this.#rowLevel();
    this.#softmax();
    this.#lookUp();
    const rowLosses = this.#traced.rowLosses;
    for (const { index } of rowLosses) this.#put(`let rowLoss${index} = loss${index}_value();`);
    this.#labelStatistics(0);
    const last = this.#lastSweep();
    for (let stage = 1; stage <= last; stage++) {
      const own = this.#needed.filter((s) => s.kind !== "label" && s.stage === stage);
      const writes = this.#gradient && stage === last;
      if (own.length > 0 || writes) this.#sweep(own, writes);
      this.#labelStatistics(stage);
    }
    this.#values();
    const body = this.#lines.map((line) => `  ${line}`).join("\n");
    // The library may name further step scalars, which the head declares.
    const library = this.#library();
    const wgsl = `${this.#head()}\n${helperFunctions(this.#helpers)}\n${library}\n${this.#main(body)}`;
    return { wgsl, scalars: this.#scalars, needsTeacher: this.#needsTeacher };
  }

  #put(...lines: string[]): void {
    this.#lines.push(...lines);
  }

  #scalarIndex(name: string): number {
    const known = this.#scalars.indexOf(name);
    return known < 0 ? this.#scalars.push(name) - 1 : known;
  }

  /** A step scalar inside `main`, where all of them are read once. */
  #scalar(name: string): string {
    return `scalar${this.#scalarIndex(name)}`;
  }

  /** A step scalar anywhere: the index comes from the size struct, the number from the step buffer. */
  #readScalar(name: string): string {
    return `step_scalar(size.scalar${this.#scalarIndex(name)})`;
  }

  /** Code of a leaf that is the same for the row. */
  #rowLeaf(name: string): LeafCode | undefined {
    if (name === ROW.vocabulary) return { code: "f32(size.vocabulary)", width: 1 };
    if (/^(stat|inverseTemperature)\d+$/.test(name)) return { code: name, width: 1 };
    if (this.#terms.some((t) => name.startsWith(`${t.name}.`))) return { code: this.#scalar(name), width: 1 };
    return undefined;
  }

  #printed(expressions: readonly Expression[], entry: (name: string) => LeafCode): PrintedExpressions {
    const printed = printWgsl(expressions, {
      prefix: `x${this.#prints++}_`,
      leaf: (name) => this.#rowLeaf(name) ?? entry(name),
    });
    for (const helper of printed.helpers) this.#helpers.add(helper);
    return printed;
  }

  /** Temperatures. */
  #rowLevel(): void {
    this.#traced.groups.forEach(({ scalar }, g) => {
      if (scalar) this.#put(`let ${ROW.inverseTemperature(g)} = 1.0 / ${this.#scalar(scalar)};`);
    });
  }

  /** `(x - m) / temperature` of a group. */
  #tempered(difference: string, g: number): string {
    return this.#traced.groups[g]!.scalar ? `(${difference}) * ${ROW.inverseTemperature(g)}` : difference;
  }

  /** Groups whose softmax of this side is needed. */
  #groupsOf(side: "q" | "p"): number[] {
    const name = side === "q" ? ENTRY.logQ : ENTRY.logP;
    const source = this.#traced.rowLosses.map(({ term, group }) => ({
      group,
      wgsl: rowLossSource(term, this.#traced, (o) => o),
    }));
    return this.#traced.groups.flatMap((_, g) =>
      this.#used.has(name(g)) ||
        source.some((s) => s.group === g && s.wgsl.includes(side === "q" ? "_logQ(" : "_logP("))
        ? [g]
        : []
    );
  }

  /** Sweep 0: maximum and, for each temperature, the logarithm of the sum of exponentials of each side. */
  #softmax(): void {
    const sides = (["q", "p"] as const).map((side) => ({ side, groups: this.#groupsOf(side) }))
      .filter(({ groups }) => groups.length > 0);
    this.#put(
      "var poison = 0.0;",
      // A label outside the vocabulary makes the row NaN, where it is seen. The sum keeps compilers from folding it.
      "if (label < 0 || label >= i32(size.vocabulary)) { poison = bitcast<f32>(0x7fc00000u + (size.rows & 0u)); }",
    );
    if (sides.length === 0) return;
    for (const { side, groups } of sides) {
      this.#put(`var max_${side} = -1.0e38;`, ...groups.map((g) => `var sum_${side}${g} = 0.0;`));
    }
    const turn = (at: Turn): string[] => {
      const lines: string[] = [];
      for (let u = 0; u < at.unroll; u++) {
        lines.push(...this.#index(at, u, String(u)));
        for (const { side } of sides) lines.push(this.#load(at, side, `${side}${u}`, String(u), true));
      }
      const over = (f: (u: number) => string, join: (a: string, b: string) => string) => {
        let parts = Array.from({ length: at.unroll }, (_, u) => f(u));
        while (parts.length > 1) {
          parts = parts.flatMap((p, i) => i % 2 ? [] : [parts[i + 1] ? join(p, parts[i + 1]!) : p]);
        }
        return parts[0]!;
      };
      for (const { side, groups } of sides) {
        lines.push(
          `let high_${side} = ${over((u) => `${side}${u}`, (a, b) => `max(${a}, ${b})`)};`,
          `let top_${side} = max(max_${side}, max(max(high_${side}.x, high_${side}.y), max(high_${side}.z, high_${side}.w)));`,
        );
        for (const g of groups) {
          const exps = over(
            (u) => `exp(${this.#tempered(`${side}${u} - top_${side}`, g)})`,
            (a, b) => `(${a} + ${b})`,
          );
          const rescale = `exp(${this.#tempered(`max_${side} - top_${side}`, g)})`;
          lines.push(`part_${side}${g} = part_${side}${g} * ${rescale} + dot(${exps}, vec4<f32>(1.0));`);
        }
        lines.push(`max_${side} = top_${side};`);
      }
      return lines;
    };
    this.#loop(
      sides.flatMap(({ side, groups }) => [
        `let before_${side} = max_${side};`,
        ...groups.map((g) => `var part_${side}${g} = 0.0;`),
      ]),
      turn,
      sides.flatMap(({ side, groups }) =>
        groups.map((g) =>
          `sum_${side}${g} = sum_${side}${g} * exp(${
            this.#tempered(`before_${side} - max_${side}`, g)
          }) + part_${side}${g};`
        )
      ),
    );
    for (const { side, groups } of sides) {
      this.#put(`let m_${side} = row_max(max_${side});`);
      for (const g of groups) {
        const share = `sum_${side}${g} * exp(${this.#tempered(`max_${side} - m_${side}`, g)})`;
        this.#put(
          `let l_${side}${g} = log(row_sum(${share}));`,
          `if (is_broken(l_${side}${g})) { poison = l_${side}${g}; }`,
        );
      }
      if (this.#traced.rowLosses.length > 0) {
        this.#put(`row_m_${side} = m_${side};`, ...groups.map((g) => `row_l_${side}${g} = l_${side}${g};`));
      }
    }
  }

  /** Logits and log-probabilities at the label, before anything is overwritten. */
  #lookUp(): void {
    const names = new Set(
      leaves(this.#needed.filter((s) => s.kind === "label").map((s) => s.body), "variable"),
    );
    const wanted = (side: "q" | "p") =>
      names.has(side === "q" ? ENTRY.student : ENTRY.teacher) ||
      this.#traced.groups.some((_, g) => names.has((side === "q" ? ENTRY.logQ : ENTRY.logP)(g)));
    for (const side of ["q", "p"] as const) {
      if (!wanted(side)) continue;
      this.#put(`let label_${side} = ${side === "q" ? "student" : "teacher"}(row_label);`);
      this.#traced.groups.forEach((_, g) => {
        const name = (side === "q" ? ENTRY.logQ : ENTRY.logP)(g);
        if (names.has(name)) {
          this.#put(`let label_${name} = ${this.#logProbability(`label_${side}`, side, g, "f32")};`);
        }
      });
    }
  }

  #logProbability(logit: string, side: "q" | "p", g: number, type: string): string {
    const floor = `${type}(${literal(LOG_FLOOR)})`;
    return `max(${this.#tempered(`${logit} - m_${side}`, g)} - l_${side}${g}, ${floor})`;
  }

  #labelStatistics(stage: number): void {
    for (const statistic of this.#needed) {
      if (statistic.kind !== "label" || statistic.stage !== stage) continue;
      const printed = this.#printed([statistic.body], (name) => ({
        code: name === ENTRY.isLabel
          ? "true"
          : name === ENTRY.student
          ? "label_q"
          : name === ENTRY.teacher
          ? "label_p"
          : `label_${name}`,
        width: 1,
      }));
      this.#put(...printed.uniform, `let ${statistic.name} = ${printed.results[0]!.code};`);
    }
  }

  /** The sweep that writes the gradient comes when all statistics it needs are there, and no later sweep reads logits. */
  #lastSweep(): number {
    const swept = this.#needed.filter((s) => s.kind !== "label").map((s) => s.stage);
    if (!this.#gradient) return Math.max(0, ...swept);
    const own = reachable([this.#traced.gradient], this.#traced.statistics).map((s) => s.stage);
    return Math.max(1, 1 + Math.max(0, ...own), ...swept);
  }

  /** One sweep over the row. */
  #sweep(statistics: readonly Statistic[], writes: boolean): void {
    const expressions = [...statistics.map((s) => s.body), ...(writes ? [this.#traced.gradient] : [])];
    const printed = this.#printed(expressions, (name) => ({ code: name, width: 4 }));
    const names = new Set(leaves(expressions, "variable"));
    const rowLosses = writes ? this.#traced.rowLosses.filter(({ term }) => !term.monitor) : [];
    const labelled = leaves(expressions, "flag").length > 0 || rowLosses.length > 0;
    const needs = (side: "q" | "p") =>
      rowLosses.some(({ term }) => side === "q" || (term.loss as RowLoss).needsTeacher) ||
      names.has(side === "q" ? ENTRY.student : ENTRY.teacher) ||
      this.#traced.groups.some((_, g) => names.has((side === "q" ? ENTRY.logQ : ENTRY.logP)(g)));
    this.#put(...printed.uniform);
    // No lane may write before all lanes have looked up what they need.
    if (writes && this.#adapter.family === "tiled") this.#put("storageBarrier();");
    statistics.forEach((s, i) => {
      this.#put(`var sum${i}_${s.name} = vec4<f32>(${s.kind === "max" ? "-3.0e38" : "0.0"});`);
    });
    const turn = (at: Turn): string[] => {
      const lines: string[] = [];
      for (let u = 0; u < at.unroll; u++) {
        lines.push("{");
        lines.push(...this.#index(at, u, ""));
        if (labelled) lines.push(`let entry = ${this.#entries("")};`);
        for (const side of ["q", "p"] as const) {
          if (!needs(side)) continue;
          const logit = side === "q" ? ENTRY.student : ENTRY.teacher;
          lines.push(this.#load(at, side, logit, "", false));
          this.#traced.groups.forEach((_, g) => {
            const name = (side === "q" ? ENTRY.logQ : ENTRY.logP)(g);
            if (names.has(name)) {
              lines.push(`let ${name} = ${this.#logProbability(logit, side, g, "vec4<f32>")};`);
            }
          });
        }
        if (labelled) lines.push(`let ${ENTRY.isLabel} = entry == vec4<u32>(row_label);`);
        lines.push(...printed.lines);
        statistics.forEach((s, i) => {
          const { code } = printed.results[i]!;
          const neutral = s.kind === "max" ? "vec4<f32>(-3.0e38)" : "vec4<f32>()";
          const value = at.masked ? `select(${neutral}, vec4<f32>(${code}), ${this.#inside("")})` : code;
          lines.push(
            s.kind === "max"
              ? `part_${s.name} = max(part_${s.name}, vec4<f32>(${value}));`
              : `part_${s.name} += ${value};`,
          );
        });
        if (writes) {
          let code = `${printed.results.at(-1)!.code} + poison`;
          for (const { term, index } of rowLosses) {
            const target = (term.loss as RowLoss).needsTeacher ? `${ENTRY.teacher}.$` : "0.0";
            const parts = ["x", "y", "z", "w"].map((c) =>
              `loss${index}_gradient(entry.${c}, ${ENTRY.student}.${c}, ${target.replace("$", c)})`
            );
            code += ` + ${this.#scalar(`${term.name}.weight`)} * vec4<f32>(${parts.join(", ")})`;
          }
          lines.push(...this.#store(at, `vec4<f32>(${code})`));
        }
        lines.push("}");
      }
      return lines;
    };
    this.#loop(
      statistics.map((s) => `var part_${s.name} = vec4<f32>(${s.kind === "max" ? "-3.0e38" : "0.0"});`),
      turn,
      statistics.map((s, i) =>
        s.kind === "max"
          ? `sum${i}_${s.name} = max(sum${i}_${s.name}, part_${s.name});`
          : `sum${i}_${s.name} += part_${s.name};`
      ),
    );
    statistics.forEach((s, i) => {
      const x = `sum${i}_${s.name}`;
      this.#put(
        s.kind === "max"
          ? `let ${s.name} = row_max(max(max(${x}.x, ${x}.y), max(${x}.z, ${x}.w)));`
          : `let ${s.name} = row_sum((${x}.x + ${x}.y) + (${x}.z + ${x}.w));`,
      );
    });
  }

  /** A loop over the row in blocks of turns, then over what is left. */
  #loop(before: readonly string[], turn: (at: Turn) => readonly string[], after: readonly string[]): void {
    const { unroll, whole, rest } = this.#layout;
    if (whole) {
      this.#put(
        `for (var block = 0u; block < turns; block += ${BLOCK}u) {`,
        ...before.map((l) => `  ${l}`),
        `  let stop = min(block + ${BLOCK}u, turns);`,
        "  for (var turn = block; turn < stop; turn++) {",
        ...turn({ unroll, masked: false }).map((l) => `    ${l}`),
        "  }",
        ...after.map((l) => `  ${l}`),
        "}",
      );
    }
    if (!rest) return;
    this.#put(
      "{",
      ...before.map((l) => `  ${l}`),
      `  for (var turn = turns * ${unroll}u; turn < vectors; turn++) {`,
      ...turn({ unroll: 1, masked: true }).map((l) => `    ${l}`),
      "  }",
      ...after.map((l) => `  ${l}`),
      "}",
    );
  }

  /** Lines that find the entries `i` of vector `u` of this turn, and `at` where they are read without leaving the row. */
  #index({ unroll, masked }: Turn, u: number, suffix: string): string[] {
    const { lanes, vector } = this.#layout;
    const first = `(turn * ${unroll}u + ${u}u) * ${lanes}u`;
    if (vector) {
      const lines = [`let i${suffix} = ${first} + lane;`];
      if (masked) lines.push(`let at${suffix} = min(i${suffix}, size.vocabulary / 4u - 1u);`);
      return lines;
    }
    const lines = [
      `let i${suffix} = vec4<u32>(4u * ${first} + lane) + vec4<u32>(0u, ${lanes}u, ${2 * lanes}u, ${
        3 * lanes
      }u);`,
    ];
    if (masked) lines.push(`let at${suffix} = min(i${suffix}, vec4<u32>(size.vocabulary - 1u));`);
    return lines;
  }

  #inside(suffix: string): string {
    return this.#layout.vector
      ? `i${suffix} < size.vocabulary / 4u`
      : `i${suffix} < vec4<u32>(size.vocabulary)`;
  }

  #entries(suffix: string): string {
    return this.#layout.vector ? `vec4<u32>(4u * i${suffix}) + vec4<u32>(0u, 1u, 2u, 3u)` : `i${suffix}`;
  }

  /** `let name = ` four logits; with `fill`, those beyond the row count as minus infinity. */
  #load({ masked }: Turn, side: "q" | "p", name: string, suffix: string, fill: boolean): string {
    const { vector } = this.#layout;
    const [buffer, base] = side === "q"
      ? ["student_logits", "student_row"]
      : ["teacher_logits", "teacher_row"];
    const at = masked ? `at${suffix}` : `i${suffix}`;
    let code = vector
      ? `${buffer}[${base} + ${at}]`
      : `vec4<f32>(${["x", "y", "z", "w"].map((c) => `${buffer}[${base} + ${at}.${c}]`).join(", ")})`;
    if (fill && masked) code = `select(vec4<f32>(-3.0e38), ${code}, ${this.#inside(suffix)})`;
    return `let ${name} = ${code};`;
  }

  /** Lines that write the gradient of four entries. */
  #store({ masked }: Turn, code: string): string[] {
    const { vector } = this.#layout;
    if (vector) {
      const store = `student_logits[student_row + i] = ${code};`;
      return [masked ? `if (${this.#inside("")}) { ${store} }` : store];
    }
    return [
      `let slope = ${code};`,
      ...["x", "y", "z", "w"].map((c) => {
        const store = `student_logits[student_row + i.${c}] = slope.${c};`;
        return masked ? `if (i.${c} < size.vocabulary) { ${store} }` : store;
      }),
    ];
  }

  #values(): void {
    const indices = [...this.#traced.values.keys()];
    const printed = this.#printed([...this.#traced.values.values()], (name) => ({ code: name, width: 1 }));
    this.#put(...printed.uniform, "if (lane == 0u) {");
    indices.forEach((index, i) =>
      this.#put(`  row_values[${index}u * size.value_stride + row] = ${printed.results[i]!.code} + poison;`)
    );
    for (const { index } of this.#traced.rowLosses) {
      this.#put(`  row_values[${index}u * size.value_stride + row] = rowLoss${index} + poison;`);
    }
    this.#put("}");
  }

  #head(): string {
    const { vector } = this.#layout;
    const row = vector ? "array<vec4<f32>>" : "array<f32>";
    const access = this.#gradient ? "read_write" : "read";
    const teacher = this.#needsTeacher ? 1 : 0;
    const shapes = [
      "labels        i32 [R], -100: masked",
      ...(teacher ? ["teacher_logits f32 [R, teacher_stride]"] : []),
      `student_logits f32 [R, V]${
        this.#gradient ? ", overwritten with the gradient of the weighted sum of losses" : ""
      }`,
      "row_values     f32 [K, R], unweighted",
    ];
    return [
      `// ${this.#terms.map((t) => t.loss.id).join(" + ")} of each row of logits, one workgroup a row.`,
      "//",
      ...shapes.map((s) => `// ${s}`),
      "struct Size {",
      "  rows: u32, vocabulary: u32, teacher_stride: u32, value_stride: u32,",
      ...this.#scalars.map((name, i) => `  scalar${i}: u32, // ${name}`),
      "}",
      "@group(0) @binding(0) var<storage, read> labels: array<i32>;",
      ...(teacher ? [`@group(0) @binding(1) var<storage, read> teacher_logits: ${row};`] : []),
      `@group(0) @binding(${1 + teacher}) var<storage, ${access}> student_logits: ${row};`,
      `@group(0) @binding(${2 + teacher}) var<storage, read_write> row_values: array<f32>;`,
      "@group(1) @binding(0) var<uniform> size: Size;",
      "@group(1) @binding(1) var<uniform> step: array<vec4<f32>, 64>;",
    ].join("\n");
  }

  #library(): string {
    const { vector, lanes } = this.#layout;
    const at = (buffer: string, base: string) =>
      vector ? `${buffer}[${base} + v / 4u][v % 4u]` : `${buffer}[${base} + v]`;
    const parts = [
      `const LANES = ${lanes}u;`,
      "var<private> lane: u32;",
      "var<private> row_label: u32;",
      "var<private> row_vocabulary: u32;",
      "var<private> student_row: u32;",
      "fn step_scalar(i: u32) -> f32 { return step[i / 4u][i % 4u]; }",
      "fn is_broken(x: f32) -> bool { return (bitcast<u32>(x) & 0x7f800000u) == 0x7f800000u; }",
      `fn student(v: u32) -> f32 { return ${at("student_logits", "student_row")}; }`,
    ];
    if (this.#needsTeacher) {
      parts.push(
        "var<private> teacher_row: u32;",
        `fn teacher(v: u32) -> f32 { return ${at("teacher_logits", "teacher_row")}; }`,
      );
    }
    parts.push(reductions(this.#adapter.family, lanes));
    if (this.#traced.rowLosses.length > 0) {
      parts.push("var<private> row_m_q: f32;", "var<private> row_m_p: f32;");
      this.#traced.groups.forEach((_, g) =>
        parts.push(`var<private> row_l_q${g}: f32;`, `var<private> row_l_p${g}: f32;`)
      );
      for (const { term } of this.#traced.rowLosses) {
        parts.push(rowLossSource(term, this.#traced, (name) => this.#readScalar(name)));
      }
    }
    return parts.join("\n");
  }

  #main(body: string): string {
    const { lanes, unroll, vector } = this.#layout;
    const width = vector ? " / 4u" : "";
    const zero: string[] = [];
    if (this.#gradient) {
      zero.push(`    for (var v = lane; v < size.vocabulary${width}; v += ${lanes}u) {`);
      zero.push(`      student_logits[student_row + v] = ${vector ? "vec4<f32>()" : "0.0"};`, "    }");
    }
    return `
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) invocation: u32) {
  let row = group.x + group.y * groups.x;
  if (row >= size.rows) { return; }
  lane = invocation;
  row_vocabulary = size.vocabulary;
  student_row = row * (size.vocabulary${width});${
      this.#needsTeacher ? `\n  teacher_row = row * (size.teacher_stride${width});` : ""
    }
  let label = labels[row];
  if (label == -100) {
${zero.join("\n")}
    if (lane == 0u) {
      for (var k = 0u; k < ${this.#terms.length}u; k++) { row_values[k * size.value_stride + row] = 0.0; }
    }
    return;
  }
  row_label = min(u32(max(label, 0)), size.vocabulary - 1u);
${this.#scalars.map((_, i) => `  let scalar${i} = step_scalar(size.scalar${i});`).join("\n")}
  let turns = size.vocabulary / ${4 * lanes * unroll}u;
  let vectors = (size.vocabulary + ${4 * lanes - 1}u) / ${4 * lanes}u;
${body}
}
`;
  }
}

/** The statistics that expressions need, directly or through others, in the order in which they were made. */
function reachable(roots: readonly Expression[], statistics: readonly Statistic[]): Statistic[] {
  const needed = new Set<Statistic>();
  const visit = (expressions: readonly Expression[]) => {
    for (const name of leaves(expressions, "variable")) {
      const statistic = statistics.find((s) => s.name === name);
      if (!statistic || needed.has(statistic)) continue;
      needed.add(statistic);
      visit([statistic.body]);
    }
  };
  visit(roots);
  return statistics.filter((s) => needed.has(s));
}
