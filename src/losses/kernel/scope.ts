/**
 * What the parts of a row kernel share while it is printed: which losses it has, what they need of a row, and what its numbers are
 * called.
 *
 * @module
 */
import type { DeviceDescription, KernelFamily } from "../../gpu/description.ts";
import {
  type Expression,
  type LeafCode,
  leaves,
  literal,
  type PrintedExpressions,
  printWgsl,
} from "../../tensor/expr/mod.ts";
import { LOG_FLOOR, type RowLoss } from "../contract.ts";
import { ENTRY, reachable, ROW, type Statistic } from "../row_leaves.ts";
import type { ResolvedLoss, RowLossShape, TracedObjective } from "../traced.ts";
import { RowLayout, type Side } from "./layout.ts";

/** Leaves of an entry by the model they look at: its logit, and its log-probability at each temperature. */
export const LEAVES: Readonly<Record<Side, { logit: string; logProbability: (g: number) => string }>> = {
  q: { logit: ENTRY.student, logProbability: ENTRY.logQ },
  p: { logit: ENTRY.teacher, logProbability: ENTRY.logP },
};

/** One kernel that is being printed. */
export class RowScope {
  readonly terms: readonly ResolvedLoss[];
  readonly traced: TracedObjective;
  readonly layout: RowLayout;
  readonly family: KernelFamily;
  /** Whether it writes the gradient; without, the learner's logits stay as they are. */
  readonly gradient: boolean;
  /** Statistics over the vocabulary that values or gradient need, in the order in which they were made. */
  readonly statistics: readonly Statistic[];
  /** Leaves that occur in any of them, in a value or in the gradient. */
  readonly used: ReadonlySet<string>;
  readonly needsTeacher: boolean;
  readonly #scalars: string[] = [];
  readonly #helpers = new Set<string>();
  #prints = 0;

  constructor(
    terms: readonly ResolvedLoss[],
    traced: TracedObjective,
    shape: RowLossShape,
    device: DeviceDescription,
    gradient: boolean,
  ) {
    [this.terms, this.traced, this.gradient] = [terms, traced, gradient];
    [this.layout, this.family] = [new RowLayout(shape, device), device.family];
    const roots = [...traced.values.values(), ...(gradient ? [traced.gradient] : [])];
    this.statistics = reachable(roots, traced.statistics);
    this.used = new Set(leaves([...roots, ...this.statistics.map((s) => s.body)], "variable"));
    this.needsTeacher = this.reads(this.used, "p") ||
      traced.rowLosses.some(({ term }) => (term.loss as RowLoss).needsTeacher);
  }

  /** Whether leaves are made from an entry's logit of this side. */
  reads(names: ReadonlySet<string>, side: Side): boolean {
    const { logit, logProbability } = LEAVES[side];
    return names.has(logit) || this.traced.groups.some((_, g) => names.has(logProbability(g)));
  }

  /** Names of the step scalars so far, in the order of the size struct. */
  get scalars(): readonly string[] {
    return this.#scalars;
  }

  /** Helper functions that printed expressions call. */
  get helpers(): ReadonlySet<string> {
    return this.#helpers;
  }

  /** A step scalar inside `main`, where all of them are read once. */
  scalar(name: string): string {
    return `scalar${this.#scalarIndex(name)}`;
  }

  /** A step scalar anywhere: the index comes from the size struct, the number from the step buffer. */
  readScalar(name: string): string {
    return `step_scalar(size.scalar${this.#scalarIndex(name)})`;
  }

  #scalarIndex(name: string): number {
    const known = this.#scalars.indexOf(name);
    return known < 0 ? this.#scalars.push(name) - 1 : known;
  }

  /** The weight of a loss that is not only monitored. */
  weight({ name }: ResolvedLoss): string {
    return this.scalar(`${name}.weight`);
  }

  /** Prints expressions; `entry` gives the code of leaves that differ from entry to entry. */
  printed(expressions: readonly Expression[], entry: (name: string) => LeafCode): PrintedExpressions {
    const printed = printWgsl(expressions, {
      prefix: `x${this.#prints++}_`,
      leaf: (name) => this.#rowLeaf(name) ?? entry(name),
    });
    for (const helper of printed.helpers) this.#helpers.add(helper);
    return printed;
  }

  /** Code of a leaf that is the same for the row. */
  #rowLeaf(name: string): LeafCode | undefined {
    if (name === ROW.vocabulary) return { code: "f32(size.vocabulary)", width: 1 };
    if (/^(stat|support|inverseTemperature|inMask|tail_q)\d+$/.test(name)) return { code: name, width: 1 };
    if (this.terms.some((t) => name.startsWith(`${t.name}.`))) return { code: this.scalar(name), width: 1 };
    return undefined;
  }

  /** `difference / temperature` of the temperature numbered `g`. */
  tempered(difference: string, g: number): string {
    return this.traced.groups[g]!.scalar ? `(${difference}) * ${ROW.inverseTemperature(g)}` : difference;
  }

  /** The log-probability of a logit, once the softmax is known. */
  logProbability(logit: string, side: Side, g: number, type: "f32" | "vec4<f32>"): string {
    const floor = `${type}(${literal(LOG_FLOOR)})`;
    return `max(${this.tempered(`${logit} - m_${side}`, g)} - l_${side}${g}, ${floor})`;
  }

  /** A value where the row is in the term's token mask, else zero. */
  whereCounted(term: ResolvedLoss, code: string, zero: string): string {
    return this.traced.tokenMasks ? `select(${zero}, ${code}, ${ROW.inMask(term.tokenMask ?? 0)})` : code;
  }
}
