/**
 * How what is trained on a model takes part in its forward pass: what is called for its weights, linear layers and experts while it is traced.
 *
 * @module
 */
import type { Tensor } from "../tensor/graph.ts";

/** Called for every linear layer: base output in, output with whatever an adapter adds out. */
export type LinearHook = (name: string, x: Tensor, weight: Tensor, base: () => Tensor) => Tensor;

/** A layer of the experts of a mixture, as adapters see it: one weight [out, in] for each expert. */
export interface ExpertLayer {
  /** Module path of the experts and what transformers calls the parameter: `model.layers.0.mlp.experts.gate_up_proj`. */
  readonly name: string;
  readonly experts: number;
  readonly out: number;
  readonly in: number;
  /** The modules whose weights lie one above the other in that of an expert. */
  modules(expert: number): readonly string[];
}

/**
 * Called for every layer of experts: the outputs of the frozen experts in, outputs with whatever an adapter adds out; undefined where none
 * is adapted.
 *
 * @param x f32 [S, in], a row for each pair of a token and one of its experts
 * @param base f32 [S, out]
 * @param linear Multiplies rows by the part of a parameter [experts * out, in] that is their expert's
 */
export type ExpertsHook = (
  layer: ExpertLayer,
  x: Tensor,
  base: () => Tensor,
  linear: (rows: Tensor, parameter: Tensor) => Tensor,
) => Tensor | undefined;

/** Called for every weight by its Hugging Face name: the tensor that stands in its place, where one does. */
export type WeightHook = (name: string, shape: readonly number[]) => Tensor | undefined;

/** How what is trained on a model takes part in its forward pass. */
export interface ModelHooks {
  readonly onLinear?: LinearHook;
  readonly onExperts?: ExpertsHook;
  readonly onWeight?: WeightHook;
}
