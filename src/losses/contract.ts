/**
 * The contract of losses that work on rows of logits, at two levels: a divergence (one expression), a row loss (WGSL for one row); and of
 * the controllers that set their options.
 *
 * All losses are per position; the trainer masks, weights and averages them. p is the target's distribution, q the learner's,
 * both at the term's temperature.
 *
 * @module
 */
import type { z } from "zod";
import type { Condition, Expression } from "../tensor/expr/mod.ts";
import type { OptionsSchema, PluginHeader } from "../base/plugin.ts";

/** Options as a plugin's expression sees them: plain values, but symbols for those that a schedule may change at every step. */
export type SymbolicOptions<Schema extends OptionsSchema, Scheduled extends string> =
  & Omit<z.output<Schema>, Scheduled>
  & { readonly [name in Scheduled]: Expression };

/** What a divergence's expressions are made of. */
export interface DivergenceSymbols<Options = Record<string, unknown>> {
  /** log p of this vocabulary entry; never below {@linkcode LOG_FLOOR}, so 0 log 0 is 0 * finite. */
  readonly logP: Expression;
  /** log q of this vocabulary entry; never below {@linkcode LOG_FLOOR}. */
  readonly logQ: Expression;
  /** The same as `exp(logP)`. */
  readonly p: Expression;
  /** The same as `exp(logQ)`. */
  readonly q: Expression;
  /** The learner's logit of this entry as it is, without temperature; -inf where the vocabulary is padded so. */
  readonly studentLogit: Expression;
  /** The target's logit of this entry as it is, without temperature. */
  readonly teacherLogit: Expression;
  /** Whether this entry is the label. */
  readonly isLabel: Condition;
  /** Number of entries of the vocabulary. */
  readonly vocabulary: Expression;
  readonly options: Options;
  /** Sum of an expression over the row: one number for the whole row. Differentiated through unless detached. */
  sum(entry: Expression): Expression;
  /** Largest value over the row; its derivative goes to every entry that attains it. */
  max(entry: Expression): Expression;
  /** log sum exp of an expression over the row. */
  logSumExp(entry: Expression): Expression;
  /** The value of an expression at the label: costs one look-up, not a sweep. */
  atLabel(entry: Expression): Expression;
}

/** What the loss of a pair of texts is made of; see {@linkcode DivergenceDefinition.pairs}. */
export interface PairSymbols<Options = Record<string, unknown>> {
  /** The row values of the better text, summed over what is learnt of it. */
  readonly chosen: Expression;
  /** Likewise of the worse text. */
  readonly rejected: Expression;
  /** Mean of `chosen` over the pairs of the micro-batch, constant in the gradient. */
  readonly chosenMean: Expression;
  /** Mean of `rejected`, likewise. */
  readonly rejectedMean: Expression;
  readonly options: Options;
}

/** Lowest log-probability. exp of it is 0 in f32 and f64, and its product with 0 is 0. */
export const LOG_FLOOR = -10_000;

/** Level 1: see {@linkcode defineDivergence}. */
export interface DivergenceDefinition<
  Schema extends OptionsSchema = OptionsSchema,
  Scheduled extends string = string,
> extends PluginHeader<Schema> {
  /** Measured on held-out samples beside it, with its options, under its name and theirs: what shows how it is getting on. */
  readonly monitors?: readonly (Divergence | RowLoss)[];
  /** Sets scheduled options from step to step by what the loss did, where its options ask for that. */
  readonly controller?: Controller<z.output<Schema>>;
  /** Numeric options that a schedule may change at every step; they come as symbols, and changing them needs no new kernel. */
  readonly scheduled?: readonly Scheduled[];
  /** The summand of one vocabulary entry: D = sum over the vocabulary of it. */
  term?(symbols: DivergenceSymbols<SymbolicOptions<Schema, Scheduled>>): Expression;
  /** Instead of `term`: the value of the whole row, from `sum`, `max`, `logSumExp` and `atLabel` of entry expressions. */
  value?(symbols: DivergenceSymbols<SymbolicOptions<Schema, Scheduled>>): Expression;
  /**
   * Makes it a loss over pairs of texts, rows of prompt, chosen and rejected: row values are summed over each text, and this function of the
   * two sums is what is minimised, on the average over pairs. Differentiated through; such a loss has no scheduled options.
   */
  pairs?(symbols: PairSymbols<z.output<Schema>>): Expression;
}

/** A registered level-1 loss. */
export interface Divergence extends Omit<DivergenceDefinition, "term" | "value" | "controller" | "pairs"> {
  readonly kind: "divergence";
  readonly controller?: Controller;
  term?(symbols: DivergenceSymbols): Expression;
  value?(symbols: DivergenceSymbols): Expression;
  pairs?(symbols: PairSymbols): Expression;
}

/**
 * A loss given by one expression. Gradient, fused kernel and f64 reference are made from it.
 *
 * @example
 * ```ts
 * import { z } from "zod";
 * import { CONTRACT_VERSION, defineDivergence } from "../registry/contract.ts";
 *
 * // KL(q || p)
 * export default defineDivergence({
 *   id: "ada/reverse-kl",
 *   version: "1.0.0",
 *   contract: CONTRACT_VERSION,
 *   options: z.strictObject({}),
 *   term: ({ q, logP, logQ }) => q.mul(logQ.sub(logP)),
 * });
 * ```
 *
 * @example With an option that may be scheduled, and row sums
 * ```ts
 * import { z } from "zod";
 * import { CONTRACT_VERSION, defineDivergence } from "../registry/contract.ts";
 *
 * // Forward KL with the target's entropy as a detached factor.
 * export default defineDivergence({
 *   id: "ada/sharpness-weighted",
 *   version: "1.0.0",
 *   contract: CONTRACT_VERSION,
 *   options: z.strictObject({ strength: z.number().min(0).default(1) }),
 *   scheduled: ["strength"],
 *   value: ({ p, logP, logQ, sum, options }) => {
 *     const entropy = sum(p.mul(logP)).neg();
 *     return sum(p.mul(logP.sub(logQ))).mul(options.strength.mul(entropy).neg().exp().detach());
 *   },
 * });
 * ```
 */
export function defineDivergence<Schema extends OptionsSchema, const Scheduled extends string = never>(
  definition: DivergenceDefinition<Schema, Scheduled>,
): Divergence {
  return { ...definition, kind: "divergence" } as unknown as Divergence;
}

/** Memory that a row loss is lent while it works on a row, beside what its lanes have; see {@linkcode RowLossDefinition.memory}. */
export interface RowMemory {
  /** Words of the row's own storage, for each entry of the vocabulary. */
  readonly perEntry: number;
  /** Words of the workgroup's memory: at most 3000, which leaves the least that WebGPU guarantees enough for sums over lanes. */
  readonly workgroup: number;
}

/** What a row loss's source is written for. */
export interface RowLossSource<Options = Record<string, unknown>> {
  /** Plain option values. */
  readonly options: Options;
  /** WGSL (f32) of each option that may be scheduled. */
  readonly scalars: Readonly<Record<string, string>>;
}

/** One row for the f64 reference of a row loss. */
export interface ReferenceRow<Options = Record<string, unknown>> {
  /** Learner's and target's logits, without temperature. */
  readonly student: Float64Array;
  readonly teacher: Float64Array;
  readonly label: number;
  readonly temperature: number;
  /** Values of all options, scheduled ones included. */
  readonly options: Options;
}

/** Level 2: see {@linkcode defineLoss}. */
export interface RowLossDefinition<
  Schema extends OptionsSchema = OptionsSchema,
  Scheduled extends string = string,
> extends PluginHeader<Schema> {
  /** Measured on held-out samples beside it, with its options, under its name and theirs: what shows how it is getting on. */
  readonly monitors?: readonly (Divergence | RowLoss)[];
  /** Sets scheduled options from step to step by what the loss did, where its options ask for that. */
  readonly controller?: Controller<z.output<Schema>>;
  readonly scheduled?: readonly Scheduled[];
  readonly needsTeacher: boolean;
  /** Where the loss needs memory that is as long as the row, such as for a sort; the source then has the functions below for it. */
  readonly memory?: RowMemory;
  /**
   * WGSL of two functions, with whatever private variables and functions they need. Write `$` before every name of your own:
   * it becomes a prefix that keeps several losses in one kernel apart.
   *
   * - `fn $value() -> f32`: the loss of the row. Called once by all lanes together; every lane must return the same number.
   * - `fn $gradient(v: u32, z: f32, t: f32) -> f32`: dD/dz of entry `v`, with the learner's and target's logit z and t. Called
   *   once for each entry, by any lane, after `$value`.
   *
   * In reach: `student(v)`, `teacher(v)` (logits, valid in `$value` only), `student4(i)`, `teacher4(i)` (the four from 4 i on, those beyond
   * the row -3.0e38: reading them at once is faster); `row_vocabulary`, `row_label` (u32);
   * `lane` and `LANES` (entries `v = lane, lane + LANES, ...` are this lane's share);
   * `row_sum(f32)`, `row_max(f32)`, `row_min_u32(u32)` over what each lane brings (call them in uniform control flow);
   * `$temperature()`, `$logQ(z)` and `$logP(z)`: log-probability of a logit of this row at the term's temperature.
   *
   * With `memory` also `$load(i) -> u32` and `$store(i, x)`, i < perEntry * row_vocabulary: words of the loss's own, whatever was there before
   * at first, which stay until the row is done; `row_shared`, an `array<u32>` that all losses of the kernel share, so nothing stays in it when
   * `$value` returns; and `row_barrier()`, after which every lane sees what the others have written to either (uniform control flow).
   */
  wgsl(source: RowLossSource<Omit<z.output<Schema>, Scheduled>>): string;
  /**
   * Why `$gradient` is not the derivative of `$value`, where it is so by design, such as "the weights are constants in the
   * gradient". `limbeck plugin check` then only compares WGSL and `reference`.
   */
  readonly surrogateGradient?: string;
  /** Value and gradient with respect to the learner's logits, in f64, written without looking at the WGSL. */
  reference(row: ReferenceRow<z.output<Schema>>): { value: number; gradient: Float64Array };
}

/** A registered level-2 loss. */
export interface RowLoss extends RowLossDefinition {
  readonly kind: "row-loss";
}

/**
 * A loss written in WGSL for one row of logits: for what needs sorting, top-k or search over the row.
 *
 * @example Hinge on the margin between the target's favourite and the learner's best other entry
 * ```ts
 * import { z } from "zod";
 * import { CONTRACT_VERSION, defineLoss } from "../registry/contract.ts";
 *
 * export default defineLoss({
 *   id: "ada/margin",
 *   version: "1.0.0",
 *   contract: CONTRACT_VERSION,
 *   options: z.strictObject({ margin: z.number().positive().default(1) }),
 *   needsTeacher: true,
 *   wgsl: ({ options }) => `
 *     var<private> $wanted: u32;
 *     var<private> $rival: u32;
 *     var<private> $active: f32;
 *     fn $best(skip: u32, ofTeacher: bool) -> u32 {
 *       var top = -3.0e38;
 *       var at = 0xffffffffu;
 *       for (var v = lane; v < row_vocabulary; v += LANES) {
 *         let z = select(student(v), teacher(v), ofTeacher);
 *         if (v != skip && z > top) { top = z; at = v; }
 *       }
 *       let highest = row_max(top);
 *       return row_min_u32(select(0xffffffffu, at, top == highest));
 *     }
 *     fn $value() -> f32 {
 *       $wanted = $best(0xffffffffu, true);
 *       $rival = $best($wanted, false);
 *       let gap = ${options.margin} - student($wanted) + student($rival);
 *       $active = select(0.0, 1.0, gap > 0.0);
 *       return max(gap, 0.0);
 *     }
 *     fn $gradient(v: u32, z: f32, t: f32) -> f32 {
 *       return $active * (select(0.0, 1.0, v == $rival) - select(0.0, 1.0, v == $wanted));
 *     }`,
 *   reference({ student, teacher, options }) {
 *     const wanted = teacher.indexOf(Math.max(...teacher));
 *     const others = student.map((z, v) => v === wanted ? -Infinity : z);
 *     const rival = others.indexOf(Math.max(...others));
 *     const gap = options.margin - student[wanted]! + student[rival]!;
 *     const gradient = new Float64Array(student.length);
 *     if (gap > 0) [gradient[wanted], gradient[rival]] = [-1, 1];
 *     return { value: Math.max(gap, 0), gradient };
 *   },
 * });
 * ```
 */
export function defineLoss<Schema extends OptionsSchema, const Scheduled extends string = never>(
  definition: RowLossDefinition<Schema, Scheduled>,
): RowLoss {
  return { ...definition as unknown as RowLossDefinition, kind: "row-loss" };
}

/** What a controller remembers. Plain JSON, so that a checkpoint holds it and a resumed run goes on bit for bit. */
export type ControllerState = Readonly<Record<string, number | null>>;

/** A step that has been done, as a controller sees it. */
export interface ControlledStep {
  /** The loss, unweighted: the mean over its tokens in that step, in nats. Always finite. */
  readonly value: number;
  /** Means of what the controller measures over the same tokens, by id. Always finite. */
  readonly measured: Readonly<Record<string, number>>;
  /** Number of that step, from 0. */
  readonly step: number;
  /** Steps of the whole run. */
  readonly steps: number;
}

/**
 * Sets scheduled options of a loss. Every function is pure.
 *
 * With a controller the numbers of each step are read back before the next begins, which costs at least 10 ms a step.
 */
export interface Controller<Options = Record<string, unknown>> {
  /** The scheduled options that it sets. */
  readonly sets: readonly string[];
  /** Measured in training steps beside the loss, over its tokens, at temperature 1 and without options. */
  readonly measures?: readonly Divergence[];
  /** Its state before the first step; undefined where the options do not ask for a controller. */
  start(options: Options): ControllerState | undefined;
  /** Its state after a step. Left out after steps in which the loss had no tokens, or no finite value. */
  next(state: ControllerState, done: ControlledStep, options: Options): ControllerState;
  /** The options that it sets, for the step that follows. */
  values(state: ControllerState, options: Options): Readonly<Record<string, number>>;
  /** The options that it sets where held-out samples are measured: always the same, so that measurements can be compared. */
  heldOut(options: Options): Readonly<Record<string, number>>;
}
