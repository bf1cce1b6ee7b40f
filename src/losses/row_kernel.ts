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
  type LeafCode,
  leaves,
  literal,
  type PrintedExpressions,
  printWgsl,
} from "../tensor/expr/mod.ts";
import type { ResolvedLoss, RowLossShape, TracedObjective } from "./traced.ts";
import { LOG_FLOOR, type RowLoss } from "./contract.ts";
import { printFrame, rowLossSource } from "./row_kernel_frame.ts";
import { RowLayout, type Turn } from "./row_layout.ts";
import { ENTRY, ROW, type Statistic } from "./row_program.ts";
import { SupportPrinter } from "./row_support.ts";

/** What {@linkcode printRowKernel} returns. */
export interface PrintedRowKernel {
  readonly wgsl: string;
  readonly scalars: readonly string[];
  readonly needsTeacher: boolean;
  readonly needsCache: boolean;
}

/** Prints the kernel. `gradient: false` leaves the learner's logits alone. */
export function printRowKernel(
  terms: readonly ResolvedLoss[],
  traced: TracedObjective,
  shape: RowLossShape,
  adapter: AdapterDescription,
  gradient: boolean,
): PrintedRowKernel {
  return new Printer(terms, traced, new RowLayout(shape, adapter), adapter, gradient).print();
}

class Printer {
  readonly #terms: readonly ResolvedLoss[];
  readonly #traced: TracedObjective;
  readonly #layout: RowLayout;
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
  /** What is compared with a cached target. */
  readonly #support: SupportPrinter | undefined;
  readonly #looksAtCache: boolean;

  constructor(
    terms: readonly ResolvedLoss[],
    traced: TracedObjective,
    layout: RowLayout,
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
    const { support } = traced;
    const compared = support
      ? [...traced.values.values(), ...(gradient ? support.gradients.values() : [])]
      : [];
    const statistics = reachable(compared, support?.statistics ?? []);
    const looksAtTarget = leaves([...compared, ...statistics.map((s) => s.body)], "variable")
      .some((name) => name.startsWith("logP"));
    this.#looksAtCache = looksAtTarget;
    this.#support = support && new SupportPrinter({
      ...{ support, statistics, looksAtTarget, gradient },
      tempered: (difference, g) => this.#tempered(difference, g),
      printed: (expressions, entry) => this.#printed(expressions, entry),
    });
  }

  print(): PrintedRowKernel {
    this.#rowLevel();
    if (this.#mayRunOut) {
      this.#put(...this.#writeValues(() => "bitcast<f32>(0x7fc00000u + (size.rows & 0u))"));
    }
    this.#softmax();
    this.#lookUp();
    if (this.#support) this.#put(...this.#support.compare());
    this.#breakWeights();
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
    if (this.#support && this.#gradient) this.#finishSupport();
    this.#values();
    const wgsl = printFrame({
      terms: this.#terms,
      traced: this.#traced,
      layout: this.#layout,
      family: this.#adapter.family,
      gradient: this.#gradient,
      needsTeacher: this.#needsTeacher,
      cache: this.#traced.support && { ...this.#traced.support, looksAtTarget: this.#looksAtCache },
      helpers: this.#helpers,
      scalars: this.#scalars,
      readScalar: (name) => this.#readScalar(name),
      body: this.#lines,
    });
    return {
      ...{ wgsl, scalars: this.#scalars, needsTeacher: this.#needsTeacher },
      needsCache: this.#traced.support !== undefined,
    };
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
    if (/^(stat|support|inverseTemperature|inMask|tail_q)\d+$/.test(name)) return { code: name, width: 1 };
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

  /** Token masks and temperatures. */
  #rowLevel(): void {
    if (this.#traced.tokenMasks) {
      for (const mask of new Set(this.#terms.map((t) => t.tokenMask ?? 0))) {
        this.#put(`let ${ROW.inMask(mask)} = ((token_mask >> ${mask}u) & 1u) != 0u;`);
      }
    }
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
      this.#used.has(name(g)) || (side === "q" && this.#support?.groups.includes(g)) ||
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
      `if (${
        this.#traced.tokenMasks ? "(label < 0 && label != -100)" : "label < 0"
      } || label >= i32(size.vocabulary)) { poison = bitcast<f32>(0x7fc00000u + (size.rows & 0u)); }`,
    );
    if (sides.length === 0) return;
    if (this.#support) {
      if (this.#labelSide("q")) this.#put("let label_q = student(row_label);");
      this.#put(...this.#support.take());
    }
    for (const { side, groups } of sides) {
      this.#put(`var max_${side} = -1.0e38;`, ...groups.map((g) => `var sum_${side}${g} = 0.0;`));
    }
    const turn = (at: Turn): string[] => {
      const lines: string[] = [];
      for (let u = 0; u < at.unroll; u++) {
        lines.push(...this.#layout.index(at, u, String(u)));
        for (const { side } of sides) lines.push(this.#layout.load(at, side, `${side}${u}`, String(u), true));
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
    this.#put(...this.#layout.loop(
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
    ));
    if (this.#support) this.#put(...this.#support.join(sides[0]!.groups));
    else this.#joinLanes(sides);
    for (const { side, groups } of sides) {
      if (this.#traced.rowLosses.length > 0) {
        this.#put(`row_m_${side} = m_${side};`, ...groups.map((g) => `row_l_${side}${g} = l_${side}${g};`));
      }
    }
  }

  /** Both sides take their way over the lanes together, where both have one. */
  #joinLanes(sides: readonly { side: "q" | "p"; groups: readonly number[] }[]): void {
    const together = (reduce: string, terms: readonly { name: string; share: string }[]) => {
      const [one, other] = terms;
      if (other) {
        const [a, b] = [one!.name, other.name];
        this.#put(
          `let ${a}_${b} = ${reduce}2(vec2<f32>(${one!.share}, ${other.share}));`,
          `let ${a} = ${a}_${b}.x;`,
          `let ${b} = ${a}_${b}.y;`,
        );
      } else if (one) this.#put(`let ${one.name} = ${reduce}(${one.share});`);
    };
    together("row_max", sides.map(({ side }) => ({ name: `m_${side}`, share: `max_${side}` })));
    this.#traced.groups.forEach((_, g) => {
      const own = sides.filter(({ groups }) => groups.includes(g)).map(({ side }) => side);
      together(
        "row_sum",
        own.map((side) => ({
          name: `total_${side}${g}`,
          share: `sum_${side}${g} * exp(${this.#tempered(`max_${side} - m_${side}`, g)})`,
        })),
      );
      for (const side of own) {
        this.#put(
          `let l_${side}${g} = log(total_${side}${g});`,
          `if (is_broken(l_${side}${g})) { poison = l_${side}${g}; }`,
        );
      }
    });
  }

  /** In a broken row every weight is NaN, and with it every gradient: one addition a row instead of one for each entry. */
  #breakWeights(): void {
    if (!this.#gradient) return;
    for (const { name, monitor } of this.#terms) {
      if (!monitor) this.#put(`${this.#scalar(`${name}.weight`)} += poison;`);
    }
  }

  /** Leaves that are looked up at the label. */
  #labelLeaves(): Set<string> {
    return new Set(leaves(this.#needed.filter((s) => s.kind === "label").map((s) => s.body), "variable"));
  }

  /** Whether a logit of this side is looked up at the label. */
  #labelSide(side: "q" | "p"): boolean {
    const names = this.#labelLeaves();
    return names.has(side === "q" ? ENTRY.student : ENTRY.teacher) ||
      this.#traced.groups.some((_, g) => names.has((side === "q" ? ENTRY.logQ : ENTRY.logP)(g)));
  }

  /** Logits and log-probabilities at the label, before anything is overwritten. */
  #lookUp(): void {
    const names = this.#labelLeaves();
    for (const side of ["q", "p"] as const) {
      if (!this.#labelSide(side)) continue;
      // With a cached target it has been looked up before the row was changed.
      if (!this.#support) {
        this.#put(`let label_${side} = ${side === "q" ? "student" : "teacher"}(row_label);`);
      }
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
    const labelled = leaves(expressions, "flag").includes(ENTRY.isLabel) || rowLosses.length > 0;
    const needs = (side: "q" | "p") =>
      (side === "q" && writes && this.#support !== undefined) ||
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
        lines.push(...this.#layout.index(at, u, ""));
        if (labelled) lines.push(`let entry = ${this.#layout.entries("")};`);
        for (const side of ["q", "p"] as const) {
          if (!needs(side)) continue;
          const logit = side === "q" ? ENTRY.student : ENTRY.teacher;
          lines.push(this.#layout.load(at, side, logit, "", false));
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
          const value = at.masked
            ? `select(${neutral}, vec4<f32>(${code}), ${this.#layout.inside("")})`
            : code;
          lines.push(
            s.kind === "max"
              ? `part_${s.name} = max(part_${s.name}, vec4<f32>(${value}));`
              : `part_${s.name} += ${value};`,
          );
        });
        if (writes) {
          let code = printed.results.at(-1)!.code;
          for (const { term, index } of rowLosses) {
            const target = (term.loss as RowLoss).needsTeacher ? `${ENTRY.teacher}.$` : "0.0";
            const parts = ["x", "y", "z", "w"].map((c) =>
              `loss${index}_gradient(entry.${c}, ${ENTRY.student}.${c}, ${target.replace("$", c)})`
            );
            const weighted = `${this.#scalar(`${term.name}.weight`)} * vec4<f32>(${parts.join(", ")})`;
            code += ` + ${this.#whereCounted(term, weighted, "vec4<f32>()")}`;
          }
          if (this.#support) code += this.#support.outside();
          lines.push(...this.#layout.store(at, `vec4<f32>(${code})`));
        }
        lines.push("}");
      }
      return lines;
    };
    this.#put(...this.#layout.loop(
      statistics.map((s) => `var part_${s.name} = vec4<f32>(${s.kind === "max" ? "-3.0e38" : "0.0"});`),
      turn,
      statistics.map((s, i) =>
        s.kind === "max"
          ? `sum${i}_${s.name} = max(sum${i}_${s.name}, part_${s.name});`
          : `sum${i}_${s.name} += part_${s.name};`
      ),
    ));
    statistics.forEach((s, i) => {
      const x = `sum${i}_${s.name}`;
      this.#put(
        s.kind === "max"
          ? `let ${s.name} = row_max(max(max(${x}.x, ${x}.y), max(${x}.z, ${x}.w)));`
          : `let ${s.name} = row_sum((${x}.x + ${x}.y) + (${x}.z + ${x}.w));`,
      );
    });
  }

  /** The gradient of the entries that a cached target has, which the last sweep could not know. */
  #finishSupport(): void {
    const further = this.#traced.rowLosses.filter(({ term }) => !term.monitor).map(({ term, index }) =>
      ` + ${
        this.#whereCounted(
          term,
          `${this.#scalar(`${term.name}.weight`)} * loss${index}_gradient(id, z, 0.0)`,
          "0.0",
        )
      }`
    );
    this.#put(...this.#support!.finish(this.#traced.gradient, further.join("")));
  }

  /**
   * Mesa's software driver ends all loops of a thread after 65,535 turns together, without a word, and what a row loss of many turns leaves
   * then would pass for a result.
   */
  get #mayRunOut(): boolean {
    return this.#adapter.family === "subgroup8" && this.#traced.rowLosses.length > 0;
  }

  #values(): void {
    const indices = [...this.#traced.values.keys()];
    const printed = this.#printed([...this.#traced.values.values()], (name) => ({ code: name, width: 1 }));
    const results = new Map(indices.map((index, i) => [index, printed.results[i]!.code]));
    for (const { index } of this.#traced.rowLosses) results.set(index, `rowLoss${index}`);
    const write = this.#writeValues((index) =>
      this.#whereCounted(this.#terms[index]!, `${results.get(index)} + poison`, "0.0")
    );
    this.#put(...printed.uniform);
    if (!this.#mayRunOut) return this.#put(...write);
    this.#put(
      "// A loop that has its second turn tells that no loop before it was ended: else the values stay NaN.",
      "for (var turn = 0u; turn < 1u + min(size.rows, 1u); turn++) {",
      "  if (turn == 1u) {",
      ...write.map((line) => `    ${line}`),
      "  }",
      "}",
    );
  }

  #writeValues(value: (index: number) => string): string[] {
    const indices = [...this.#traced.values.keys(), ...this.#traced.rowLosses.map(({ index }) => index)];
    return [
      "if (lane == 0u) {",
      ...indices.map((index) => `  row_values[${index}u * size.value_stride + row] = ${value(index)};`),
      "}",
    ];
  }

  /** A value where the row is in the term's token mask, else zero. */
  #whereCounted(term: ResolvedLoss, code: string, zero: string): string {
    return this.#traced.tokenMasks ? `select(${zero}, ${code}, ${ROW.inMask(term.tokenMask ?? 0)})` : code;
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
