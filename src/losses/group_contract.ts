/**
 * The contract of losses that compare groups of tokens of two tokenisations: both models have rows of their own vocabulary, and a group is
 * one row of each, times the probability of the group's other tokens.
 *
 * @module
 */
import type { z } from "zod";
import type { OptionsSchema, PluginHeader } from "../base/plugin.ts";
import type { RowMemory } from "./contract.ts";

/**
 * What stands for a group of tokens a to b of a model, q_i being its distribution of token i and x_i the token that came:
 *
 * - `first`: q_a. Both models have then read the same bytes.
 * - `chain`: q_b times the product over i from a to b - 1 of q_i(x_i), by the chain rule the probability of each way to end the group.
 * - `observed`: q_a times the product over i from a + 1 to b of q_i(x_i).
 * - `positional`: no group at all: the k-th counted token of a sample on one side with the k-th on the other, up to the shorter.
 *
 * - `mapped`: no product either: each of the learner's counted tokens is a row of its own, beside the target's token that stands for the same,
 *   or apart where none does (FuseLLM, arXiv 2401.10491).
 *
 * Products are not normalised. Gradients flow through their factors.
 */
export type GroupRows = "first" | "chain" | "observed" | "positional" | "mapped";

/** In the label of a group: no token of the target's stands beside the learner's. */
export const APART = 1 << 30;

/** What a group loss's source is written for. */
export interface GroupLossSource<Options = Record<string, unknown>> {
  readonly options: Options;
}

/** One group for the f64 reference of a group loss: rows of two vocabularies, u = scale * softmax(logits / temperature). */
export interface ReferenceGroup<Options = Record<string, unknown>> {
  /** Learner's logits, without temperature, [V]. */
  readonly student: Float64Array;
  /** Target's logits, without temperature, of a vocabulary of its own, [W]. */
  readonly teacher: Float64Array;
  /** Logarithms of the products of the other tokens' probabilities; 0 where a group has one token. */
  readonly studentScale: number;
  readonly teacherScale: number;
  /** Of each of the learner's tokens the target's that stands for the same, or -1, [V]; absent where the loss does not need it. */
  readonly teacherOf?: ArrayLike<number>;
  /** With `mapped` rows the learner's token that came; 0 otherwise. */
  readonly label?: number;
  /** With `mapped` rows whether the target has no token beside it: its logits then mean nothing. */
  readonly isApart?: boolean;
  readonly temperature: number;
  readonly options: Options;
}

/** What the reference of a group loss gives. */
export interface GroupReference {
  readonly value: number;
  /** dD/dz of the learner's logits, 1/temperature included, [V]. */
  readonly gradient: Float64Array;
  /** dD/d(studentScale): what flows to the factors. */
  readonly slope: number;
}

/** See {@linkcode defineGroupLoss}. */
export interface GroupLossDefinition<Schema extends OptionsSchema = OptionsSchema>
  extends PluginHeader<Schema> {
  /** What stands for a group. */
  rows(options: z.output<Schema>): GroupRows;
  /** Whether it must be told which tokens of the two vocabularies are the same. */
  readonly needsMatch?: boolean;
  /** Memory as long as the longer of the two rows, `perEntry` words for each of its entries; see {@linkcode RowMemory}. */
  readonly memory?: RowMemory;
  /**
   * WGSL of three functions, with whatever private variables and functions they need. Write `$` before every name of your own, as in a row
   * loss.
   *
   * - `fn $value() -> f32`: the loss of the group. Called once by all lanes together; every lane must return the same number.
   * - `fn $slope() -> f32`: its derivative by the learner's log scale, the same for every lane. Called once, after `$value`.
   * - `fn $gradient(v: u32, z: f32) -> f32`: dD/dz of entry `v`, z its logit. Called once for each of the learner's entries, after both.
   *
   * In reach: `student(v)`, valid until `$gradient` is called; `teacher(v)`; `row_vocabulary` and `row_teacher_vocabulary` (u32); `lane`,
   * `LANES`, `row_sum`, `row_max`, `row_min_u32` and `row_barrier()` as in a row loss; `$temperature()`; `$logQ(z)`: log-probability of a
   * learner's logit; `$logU(z)` and `$logV(z)`: that of a learner's and of a target's, plus the log scale of its group.
   *
   * With `mapped` rows also `row_label` (u32), the learner's token that came, and `row_is_apart` (bool): no token of the target's stands beside
   * it, and `teacher(v)` means nothing.
   *
   * With `needsMatch` also `teacher_of(v) -> i32` and `student_of(w) -> i32`: the token of the other vocabulary that stands for the same, or
   * -1; and `row_matched` (u32), how many there are. With `memory` also `$load(i)`, `$store(i, x)` and `row_shared`.
   */
  wgsl(source: GroupLossSource<z.output<Schema>>): string;
  /** Value, gradient and slope in f64, written without looking at the WGSL. */
  reference(group: ReferenceGroup<z.output<Schema>>): GroupReference;
}

/** A registered loss over groups. */
export interface GroupLoss extends GroupLossDefinition {
  readonly kind: "group-loss";
}

/**
 * A loss over groups of tokens of two tokenisations, for `teacher.align`.
 *
 * @example Difference of the two models' confidence, whichever tokens it belongs to
 * ```ts
 * import { z } from "zod";
 * import { CONTRACT_VERSION, defineGroupLoss } from "../registry/contract.ts";
 *
 * export default defineGroupLoss({
 *   id: "ada/confidence",
 *   version: "1.0.0",
 *   contract: CONTRACT_VERSION,
 *   options: z.strictObject({}),
 *   rows: () => "first",
 *   wgsl: () => `
 *     var<private> $top: f32;
 *     var<private> $difference: f32;
 *     fn $value() -> f32 {
 *       var own = -3.0e38;
 *       var other = -3.0e38;
 *       for (var v = lane; v < row_vocabulary; v += LANES) { own = max(own, student(v)); }
 *       for (var w = lane; w < row_teacher_vocabulary; w += LANES) { other = max(other, teacher(w)); }
 *       $top = row_max(own);
 *       $difference = exp($logU($top)) - exp($logV(row_max(other)));
 *       return 0.5 * $difference * $difference;
 *     }
 *     fn $slope() -> f32 { return $difference * exp($logU($top)); }
 *     fn $gradient(v: u32, z: f32) -> f32 {
 *       return $slope() * (select(0.0, 1.0, z == $top) - exp($logQ(z))) / $temperature();
 *     }`,
 *   reference({ student, teacher, studentScale, teacherScale, temperature }) {
 *     const softmax = (z: Float64Array) => {
 *       const e = z.map((x) => Math.exp((x - Math.max(...z)) / temperature));
 *       const sum = e.reduce((a, b) => a + b);
 *       return e.map((x) => x / sum);
 *     };
 *     const q = softmax(student);
 *     const own = Math.max(...q) * Math.exp(studentScale);
 *     const difference = own - Math.max(...softmax(teacher)) * Math.exp(teacherScale);
 *     const slope = difference * own;
 *     const at = q.indexOf(Math.max(...q));
 *     const gradient = q.map((x, v) => slope * (Number(v === at) - x) / temperature);
 *     return { value: 0.5 * difference ** 2, gradient, slope };
 *   },
 * });
 * ```
 */
export function defineGroupLoss<Schema extends OptionsSchema>(
  definition: GroupLossDefinition<Schema>,
): GroupLoss {
  return { ...definition as unknown as GroupLossDefinition, kind: "group-loss" };
}
