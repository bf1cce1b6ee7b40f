/**
 * The part of a row kernel that deals with a cached target: K entries of the row, and one bucket for all others.
 *
 * For the time of sweep 0 the K logits of the learner are taken out of the row, so that the sweep finds what the others weigh by
 * itself: 1 - sum q has no digits left where the K are nearly everything. Both sides add their K entries to their bucket in one
 * way, so equal distributions come out equal to the last bit. Every entry of the row is written by one lane alone: other lanes'
 * components of a vec4 may not be written meanwhile.
 *
 * @module
 */
import { type Expression, type LeafCode, leaves, literal } from "../../tensor/expr/mod.ts";
import { LOG_FLOOR } from "../contract.ts";
import { ENTRY, reachable, type Statistic } from "../row_leaves.ts";
import { EMPTY_TAIL, type SparseTarget } from "../sparse_target.ts";
import type { SupportProgram } from "../traced.ts";
import { type RowScope } from "./scope.ts";

/** Name of the row-level leaf that is the logarithm of what the learner's bucket weighs, relative to the row's maximum. */
export const tailOfLearner = (g: number): string => `tail_q${g}`;

/** Prints the statements, in the order of its methods. */
export class CachedTarget {
  readonly target: SparseTarget;
  /** Temperatures at which something is compared with the target. */
  readonly groups: readonly number[];
  /** Whether anything looks at the target's probabilities. */
  readonly isCompared: boolean;
  readonly #scope: RowScope;
  readonly #gradients: ReadonlyMap<number, Expression>;
  /** Those over its entries that values or gradient need. */
  readonly #needed: readonly Statistic[];
  readonly #isLabelled: boolean;

  constructor(scope: RowScope, support: SupportProgram) {
    const { target, gradients } = support;
    [this.#scope, this.target, this.#gradients] = [scope, target, gradients];
    this.groups = [...gradients.keys()].sort((a, b) => a - b);
    const compared = [...scope.traced.values.values(), ...(scope.gradient ? gradients.values() : [])];
    this.#needed = reachable(compared, support.statistics);
    const own = this.#needed.map((s) => s.body);
    this.isCompared = leaves([...compared, ...own], "variable").some((name) => name.startsWith("logP"));
    this.#isLabelled = leaves([...gradients.values(), ...own], "flag").includes(ENTRY.isLabel) ||
      this.#needed.some((s) => s.kind === "label");
  }

  /** Before sweep 0: takes the learner's K logits out of the row. */
  take(): string[] {
    return [
      // Other lanes may still be looking up the label.
      "storageBarrier();",
      ...this.#owned("support_logits[k] = student(id);", "put_student(id, -3.0e38);"),
      "workgroupBarrier();",
    ];
  }

  /** After sweep 0, which left `max_q` and `sum_q` in each lane: adds the K, and puts them back. */
  join(groups: readonly number[]): string[] {
    const total = (g: number) => `total_q${g}`;
    const lines = [
      "let outer_q = row_max(max_q);",
      "var inner_q = -1.0e38;",
      ...this.#entries("inner_q = max(inner_q, support_logits[k]);"),
      "let m_q = max(outer_q, row_max(inner_q));",
      ...groups.map((g) => `var ${total(g)} = 0.0;`),
      ...this.#entries(
        ...groups.map((g) => `${total(g)} += exp(${this.#scope.tempered("support_logits[k] - m_q", g)});`),
      ),
    ];
    for (const g of groups) {
      lines.push(
        `let outer_q${g} = row_sum(sum_q${g} * exp(${this.#scope.tempered("max_q - outer_q", g)}));`,
        `let ${tailOfLearner(g)} = tail_of(${this.#scope.tempered("outer_q - m_q", g)}, outer_q${g});`,
        `let l_q${g} = log(row_sum(${total(g)}) + exp(${tailOfLearner(g)}));`,
        `if (is_broken(l_q${g})) { poison = l_q${g}; }`,
      );
    }
    return [...lines, ...this.#owned("put_student(id, support_logits[k]);"), "storageBarrier();"];
  }

  /** Normalises the target, finds the bucket and the label's entry, computes the statistics. */
  compare(): string[] {
    const lines = this.isCompared ? this.#target() : [];
    for (const g of this.groups) {
      lines.push(`let bucket_q${g} = max(${tailOfLearner(g)} - l_q${g}, ${literal(LOG_FLOOR)});`);
    }
    if (this.#isLabelled) {
      lines.push(
        "var label_place = SUPPORT;",
        ...this.#entries("if (id == row_label) { label_place = k; }"),
        "let label_entry = row_min_u32(label_place);",
      );
    }
    const last = Math.max(0, ...this.#needed.map((s) => s.stage));
    for (let stage = 0; stage <= last; stage++) {
      const own = this.#needed.filter((s) => s.stage === stage);
      lines.push(...this.#statistics(own.filter((s) => s.kind !== "label")));
      for (const s of own.filter((s) => s.kind === "label")) lines.push(...this.#atLabel(s));
    }
    for (const [g, slope] of this.#scope.gradient ? this.#gradients : []) {
      lines.push(`var slope_of_bucket${g} = 0.0;`, ...this.#inBucket([slope], [`slope_of_bucket${g} = `]));
    }
    return lines;
  }

  /** What a sweep adds to the gradient of an entry outside of the K; of the K it is overwritten later. */
  outside(): string {
    return this.groups.map((g) =>
      ` + slope_of_bucket${g} * exp(${this.#scope.tempered(`${ENTRY.student} - m_q`, g)} - ${
        tailOfLearner(g)
      })`
    ).join("");
  }

  /** After the last sweep, which could not know it: the gradient of the K entries. */
  finish(): string[] {
    const { traced } = this.#scope;
    const sum = [traced.gradient, ...this.#gradients.values()].reduce((a, b) => a.add(b));
    const ofRowLosses = traced.rowLosses.filter(({ term }) => !term.monitor).map(({ term, index }) => {
      const slope = `${this.#scope.weight(term)} * loss${index}_gradient(id, z, 0.0)`;
      return ` + ${this.#scope.whereCounted(term, slope, "0.0")}`;
    });
    const { uniform, results } = this.#scope.printed([sum], this.#leaf(false));
    return [
      ...this.#entries(
        ...this.#leaves([sum]),
        ...uniform,
        `support_logits[k] = ${results[0]!.code}${ofRowLosses.join("")};`,
      ),
      "workgroupBarrier();",
      ...this.#owned("put_student(id, support_logits[k]);"),
    ];
  }

  /** A loop over the K entries, each seen by the lane that writes it. */
  #owned(...body: string[]): string[] {
    return [
      "for (var k = 0u; k < SUPPORT; k++) {",
      "  let id = support_id(k);",
      "  if (id < size.vocabulary && owns(id)) {",
      ...body.map((l) => `    ${l}`),
      "  }",
      "}",
    ];
  }

  /** A loop over the K entries, spread over the lanes. */
  #entries(...body: string[]): string[] {
    return [
      "for (var k = lane; k < SUPPORT; k += LANES) {",
      "  let id = support_id(k);",
      "  if (id < size.vocabulary) {",
      ...body.map((l) => `    ${l}`),
      "  }",
      "}",
    ];
  }

  #target(): string[] {
    const samples = this.target.kind === "samples";
    const divided = (difference: string, g: number) =>
      samples ? difference : this.#scope.tempered(difference, g);
    const lines = [
      "var inner_p = -1.0e38;",
      ...this.#entries("inner_p = max(inner_p, support_target(k));"),
      "let m_p = row_max(inner_p);",
      ...this.groups.map((g) => `var total_p${g} = 0.0;`),
      ...this.#entries(
        ...this.groups.map((g) => `total_p${g} += exp(${divided("support_target(k) - m_p", g)});`),
      ),
    ];
    for (const g of this.groups) {
      lines.push(
        `let tail_p${g} = ${samples ? literal(EMPTY_TAIL) : `support_tail${g}()`};`,
        `let l_p${g} = log(row_sum(total_p${g}) + exp(tail_p${g}));`,
        `if (is_broken(l_p${g})) { poison = l_p${g}; }`,
        `let bucket_p${g} = max(tail_p${g} - l_p${g}, ${literal(LOG_FLOOR)});`,
      );
    }
    return lines;
  }

  /** `let`s of the leaves of an entry in a loop of {@linkcode #entries}. */
  #leaves(expressions: readonly Expression[]): string[] {
    const names = new Set([...leaves(expressions, "variable"), ...leaves(expressions, "flag")]);
    const logarithm = (difference: string, norm: string) =>
      `max(${difference} - ${norm}, ${literal(LOG_FLOOR)})`;
    const lines = ["let z = support_logits[k];"];
    for (const name of names) {
      const g = Number(name.slice(4));
      if (/^logQ\d+$/.test(name)) {
        lines.push(`let ${name} = ${logarithm(this.#scope.tempered("z - m_q", g), `l_q${g}`)};`);
      } else if (/^logP\d+$/.test(name)) {
        const difference = "support_target(k) - m_p";
        const divided = this.target.kind === "samples"
          ? `(${difference})`
          : this.#scope.tempered(difference, g);
        lines.push(`let ${name} = ${logarithm(divided, `l_p${g}`)};`);
      }
    }
    return lines;
  }

  /** Codes of an entry's leaves, or of the bucket's. */
  #leaf(bucket: boolean): (name: string) => LeafCode {
    return (name) => {
      if (name === ENTRY.student) return { code: "z", width: 1 };
      if (name === ENTRY.isLabel) {
        return { code: bucket ? "(label_entry == SUPPORT)" : "(id == row_label)", width: 1 };
      }
      const code = bucket ? name.replace("logQ", "bucket_q").replace("logP", "bucket_p") : name;
      return { code, width: 1 };
    };
  }

  #inBucket(expressions: readonly Expression[], assignments: readonly string[]): string[] {
    const { uniform, results } = this.#scope.printed(expressions, this.#leaf(true));
    return [
      "{",
      ...uniform.map((l) => `  ${l}`),
      ...assignments.map((to, i) => `  ${to}${results[i]!.code};`),
      "}",
    ];
  }

  #statistics(statistics: readonly Statistic[]): string[] {
    if (statistics.length === 0) return [];
    const bodies = statistics.map((s) => s.body);
    const { uniform, results } = this.#scope.printed(bodies, this.#leaf(false));
    const join = (s: Statistic, a: string, b: string) => s.kind === "max" ? `max(${a}, ${b})` : `${a} + ${b}`;
    return [
      ...statistics.flatMap((s) => [
        `var part_${s.name} = ${s.kind === "max" ? "-3.0e38" : "0.0"};`,
        `var bucket_${s.name} = 0.0;`,
      ]),
      ...this.#entries(
        ...this.#leaves(bodies),
        ...uniform,
        ...statistics.map((s, i) => `part_${s.name} = ${join(s, `part_${s.name}`, results[i]!.code)};`),
      ),
      ...this.#inBucket(bodies, statistics.map((s) => `bucket_${s.name} = `)),
      ...statistics.map((s) =>
        `let ${s.name} = ${
          join(s, `${s.kind === "max" ? "row_max" : "row_sum"}(part_${s.name})`, `bucket_${s.name}`)
        };`
      ),
    ];
  }

  /** A look-up at the label's entry: one of the K, or the bucket. */
  #atLabel({ name, body }: Statistic): string[] {
    const { uniform, results } = this.#scope.printed([body], this.#leaf(false));
    return [
      `var at_${name} = 0.0;`,
      "if (label_entry < SUPPORT) {",
      "  let k = label_entry;",
      "  let id = row_label;",
      ...this.#leaves([body]).map((l) => `  ${l}`),
      ...uniform.map((l) => `  ${l}`),
      `  at_${name} = ${results[0]!.code};`,
      "} else {",
      ...this.#inBucket([body], [`at_${name} = `]).map((l) => `  ${l}`),
      "}",
      `let ${name} = at_${name};`,
    ];
  }
}
