/**
 * The contract of losses over inner values of the models: tensor programs, differentiated automatically.
 *
 * @module
 */
import type { z } from "zod";
import type { OptionsSchema, PluginHeader } from "../base/plugin.ts";
import type { Divergence, RowLoss } from "../losses/contract.ts";
import type { GroupLoss } from "../losses/group_contract.ts";
import type { Tensor } from "../tensor/graph.ts";
import type { ParameterDefinition } from "./adapter_contract.ts";

/** Sizes of a model, for losses and adapters that depend on them. */
export interface ModelShape {
  readonly layers: number;
  readonly hiddenSize: number;
  readonly vocabularySize: number;
  /** Width of a layer's queries, all heads together. */
  readonly queryWidth: number;
  /** Width of a layer's keys, and of its values; with grouped queries less than that of the queries. */
  readonly keyValueWidth: number;
  /** The teacher's layer that each layer of the student was, where the student is made of the teacher's. */
  readonly originals?: readonly number[];
}

/**
 * Names of the inner values a feature loss wants. There are, each f32 [T, width]: `embeddings`, and `final_norm` behind the last layer,
 * as wide as the hidden size; of each layer I, from 0, `model.layers.I.output`, as wide; `model.layers.I.queries` and
 * `model.layers.I.keys` (both after rotation), `model.layers.I.values`, and `model.layers.I.attention`, what the values become by
 * attention, as wide as the queries.
 */
export interface Taps {
  readonly student: readonly string[];
  readonly teacher: readonly string[];
}

/** What the program of a feature loss is traced with. */
export interface FeatureInputs<Options = Record<string, unknown>> {
  /** An inner value of the learner that `taps` asked for, f32 [T, width]. */
  student(tap: string): Tensor;
  /** An inner value of the target, f32 [T, width]; nothing flows back into it. */
  teacher(tap: string): Tensor;
  /** A parameter that `parameters` declared. */
  parameter(name: string): Tensor;
  /** Number of the sample of each position in the packed stream, -1 for filler, i32 [T]. */
  readonly segments: Tensor;
  /** The positions of each position's sample, `start ... end`; both i32 [T]. Filler is a sample of one. */
  readonly sample: { readonly start: Tensor; readonly end: Tensor };
  /** 1 where the next token is learnt, else 0, i32 [T]. */
  readonly supervised: Tensor;
  /** 1 at the other positions of samples, else 0, i32 [T]. */
  readonly prompt: Tensor;
  readonly models: { readonly student: ModelShape; readonly teacher: ModelShape };
  readonly options: Options;
}

/** Level 3: see {@linkcode defineFeatureLoss}. */
export interface FeatureLossDefinition<Schema extends OptionsSchema = OptionsSchema>
  extends PluginHeader<Schema> {
  taps(models: { student: ModelShape; teacher: ModelShape }, options: z.output<Schema>): Taps;
  /** Parameters trained with the loss and thrown away after it, such as a projection between hidden sizes. */
  parameters?(
    models: { student: ModelShape; teacher: ModelShape },
    options: z.output<Schema>,
  ): readonly ParameterDefinition[];
  /** The loss of each position, f32 [T], from its own sample alone. Masking, weight and mean are the trainer's. */
  program(inputs: FeatureInputs<z.output<Schema>>): Tensor;
}

/** A registered level-3 loss. */
export interface FeatureLoss extends FeatureLossDefinition {
  readonly kind: "feature-loss";
}

/**
 * A loss over inner values of the models, written as a tensor program; gradients come from automatic differentiation.
 *
 * @example Last hidden states, the learner's through a trainable projection
 * ```ts
 * import { z } from "zod";
 * import { CONTRACT_VERSION, defineFeatureLoss, tensor, type Tensor } from "../registry/contract.ts";
 *
 * // `meanSquare` is any tensor program f32 [T, H] -> f32 [T].
 * export const hiddenStates = (meanSquare: (x: Tensor) => Tensor) => defineFeatureLoss({
 *   id: "ada/hidden-states",
 *   version: "1.0.0",
 *   contract: CONTRACT_VERSION,
 *   options: z.strictObject({ tap: z.string().default("final_norm") }),
 *   taps: (_, { tap }) => ({ student: [tap], teacher: [tap] }),
 *   parameters: ({ student, teacher }) => [{
 *     name: "projection",
 *     suffix: "hidden_projection",
 *     shape: [teacher.hiddenSize, student.hiddenSize],
 *     initialisation: { kind: "normal", deviation: 1 / Math.sqrt(student.hiddenSize) },
 *   }],
 *   program({ student, teacher, parameter, options: { tap } }) {
 *     const projected = tensor.linear(student(tap), parameter("projection"));
 *     return meanSquare(tensor.subtract(projected, teacher(tap)));
 *   },
 * });
 * ```
 */
export function defineFeatureLoss<Schema extends OptionsSchema>(
  definition: FeatureLossDefinition<Schema>,
): FeatureLoss {
  return { ...definition as unknown as FeatureLossDefinition, kind: "feature-loss" };
}

/** A loss of any level. */
export type Loss = Divergence | RowLoss | FeatureLoss | GroupLoss;
