/**
 * The contract of adapters: what is trained beside frozen linear layers, how it changes their output, how it is merged into the
 * weight and how it is saved.
 *
 * @module
 */
import type { z } from "zod";
import type { Expression } from "../tensor/expr/mod.ts";
import type { Tensor } from "../tensor/graph.ts";
import type { OptionsSchema, PluginHeader } from "../base/plugin.ts";
import type { LinearAlgebra } from "../linalg/linear_algebra.ts";

export type { LinearAlgebra } from "../linalg/linear_algebra.ts";

/** A linear layer that gets an adapter. Its weight is [outFeatures, inFeatures]. */
export interface AdaptedLayer {
  /** Module path without `.weight`: `model.layers.0.self_attn.q_proj`. */
  readonly path: string;
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** Rank and alpha of this layer, patterns of the recipe applied. */
  readonly rank: number;
  readonly alpha: number;
  /**
   * Where it is a layer of a mixture's experts, how many they are: each has a weight, and parameters, of these sizes. See
   * {@linkcode AdapterDefinition.experts}.
   */
  readonly experts?: number;
}

/** The model whose layers are adapted. */
export interface AdaptedModel {
  /** Width of the token embeddings, H. */
  readonly hiddenSize: number;
  /** Layers of the model on disk. */
  readonly sourceLayers: number;
  /** Those of them that are kept, rising; the adapted model has these, renumbered from 0. */
  readonly keptLayers: readonly number[];
  /** How many widths its layers may have, where several shapes of it are trained at once; 1 when absent. */
  readonly widths?: number;
  /** Which of them it has, from 0, the whole width; 0 when absent. */
  readonly width?: number;
  /** How many shapes of it are trained at once, every depth in every width; 1 when absent. */
  readonly shapes?: number;
  /** Which of them it has, from 0, the whole model; 0 when absent, -1 where it is none of them. */
  readonly shape?: number;
}

/** What the recipe says for any adapter, beside the plugin's own options. */
export interface AdapterSettings {
  readonly rank: number;
  readonly alpha: number;
  /** Share of the adapter's inputs set to zero while training. */
  readonly dropout: number;
  /** alpha / sqrt(rank) instead of alpha / rank (rsLoRA, arXiv 2312.03732). */
  readonly rslora: boolean;
  /** Learning rate of B over that of A (LoRA+, arXiv 2402.12354). */
  readonly loraPlusRatio: number;
  /** Optimiser steps of the run. */
  readonly steps: number;
}

/** Settings of a recipe that not every adapter has a meaning for; `alpha` stands for alphas by layer. */
export type AdapterSetting = "alpha" | "dropout" | "rslora" | "loraPlusRatio";

/** How a parameter begins. Random numbers are drawn from (seed of the run, name of the parameter). */
export type Initialisation =
  | { readonly kind: "constant"; readonly value: number }
  /** Values that are the same for every seed and weight. */
  | { readonly kind: "given"; values(): Float32Array }
  /** Uniform in [-bound, bound). */
  | { readonly kind: "uniform"; readonly bound: number }
  | { readonly kind: "normal"; readonly deviation: number }
  /** From the frozen weight [out, in] of the layer, on the host; not for parameters shared by all layers. */
  | {
    readonly kind: "fromWeight";
    compute(weight: Float32Array, layer: AdaptedLayer, linalg: LinearAlgebra): Float32Array;
  };

/** A tensor that a plugin brings along, f32. */
export interface ParameterDefinition {
  /** How the plugin's own functions call it. */
  readonly name: string;
  /** Follows the module path in files, unique to the adapter's kind: `lora_A.weight`. */
  readonly suffix: string;
  readonly shape: readonly number[];
  readonly initialisation: Initialisation;
  /** Optimiser group; see {@linkcode AdapterDefinition.groups}. `default` when absent. */
  readonly group?: string;
  /** false: fixed, drawn from the seed again instead of being saved. */
  readonly trainable?: boolean;
}

/** A tensor that an adapter keeps from step to step beside its parameters, f32: a running mean, a mask. Checkpoints hold it. */
export interface StateDefinition {
  /** How the plugin's own functions call it, unlike any parameter's name. */
  readonly name: string;
  readonly shape: readonly number[];
  /** What its elements begin with; 0 when absent. */
  readonly initial?: number;
}

/** An adapter on the whole network, as what happens once an optimiser step is traced with it. */
export interface NetworkInputs<Options = Record<string, unknown>> {
  readonly layers: readonly {
    readonly layer: AdaptedLayer;
    /** A parameter of the layer. */
    parameter(name: string): Tensor;
  }[];
  /** A parameter shared by all layers. */
  shared(name: string): Tensor;
  readonly settings: AdapterSettings;
  readonly options: Options;
}

/** What an adapter's work after the optimiser is traced with. Parameters and states may be assigned; parameters are new already. */
export interface UpdateInputs<Options = Record<string, unknown>> extends NetworkInputs<Options> {
  readonly layers: readonly (NetworkInputs["layers"][number] & {
    /** The step's gradient of a trainable parameter, before clipping; not finite where the optimiser left the step out. */
    gradient(name: string): Tensor;
    /** A state of the layer. */
    state(name: string): Tensor;
  })[];
  /** The step's gradient of a shared trainable parameter, before clipping. */
  sharedGradient(name: string): Tensor;
  /** A state shared by all layers. */
  sharedState(name: string): Tensor;
  /** f32 [1]: what clipping multiplied the gradients by, at most 1; 0 where a gradient was not finite and the step was left out. */
  readonly clipping: Tensor;
  /** A number of this step by its name, see {@linkcode AdapterDefinition.scalars}; for use in `pointwise` and `assign`. */
  scalar(name: string): Expression;
}

/** What an adapter's forward pass is traced with. */
export interface AdapterInputs<Options = Record<string, unknown>> {
  /** Input of the layer, f32 [T, in]. */
  readonly x: Tensor;
  /** Output of the frozen layer, f32 [T, out]; traced on the first call, so an adapter that replaces it costs nothing more. */
  base(): Tensor;
  /** The frozen weight [out, in] in its storage type. */
  readonly weight: Tensor;
  /** A parameter of this layer. */
  parameter(name: string): Tensor;
  /** A parameter shared by all layers. */
  shared(name: string): Tensor;
  /** Applies the recipe's dropout while training, else returns its argument. */
  dropout(x: Tensor): Tensor;
  /** x + deviation * e while training, where the elements of e are drawn from N(0, 1) for each micro-batch; else x. One shape. */
  noise(x: Tensor, deviation: Tensor): Tensor;
  /**
   * What the sample was asked, f32 [T, H]: each position has the mean of the token embeddings of its sample's prompt, which is what
   * stands before the first supervised token. Frozen, like the embeddings. For adapters with `readsPrompt`.
   */
  prompt(): Tensor;
  /** A tensor that is the same for all layers: traced for the first that asks for `name`, handed to the others. */
  once(name: string, trace: () => Tensor): Tensor;
  readonly layer: AdaptedLayer;
  readonly settings: AdapterSettings;
  readonly options: Options;
}

/** What an adapter of the experts of a mixture is traced with. */
export interface ExpertAdapterInputs<Options = Record<string, unknown>>
  extends Pick<AdapterInputs<Options>, "base" | "settings" | "options"> {
  /** A row for each pair of a token and one of its experts, f32 [S, in]; rows of no pair may hold anything. */
  readonly x: Tensor;
  /** A parameter [rows, columns] of all experts, one after another: [experts * rows, columns]. */
  parameter(name: string): Tensor;
  /** x P^T, each row with its own expert's part of a parameter [experts * out, in]; f32 [S, out]. */
  linear(x: Tensor, parameter: Tensor): Tensor;
  readonly layer: AdaptedLayer & { readonly experts: number };
}

/** Host values for merging and exporting one layer. */
export interface AdapterValues<Options = Record<string, unknown>> {
  /** Values of a parameter of this layer, as trained. */
  parameter(name: string): Float32Array;
  shared(name: string): Float32Array;
  readonly layer: AdaptedLayer;
  readonly settings: AdapterSettings;
  readonly options: Options;
}

/** How an adapter appears in PEFT's files. Keys are `base_model.model.` + module path + `.` + suffix. */
export interface PeftLayout {
  /** Such as `LORA`. */
  readonly peftType: string;
  /** Fields of adapter_config.json that depend on the adapter; rank, alpha, targets and patterns included. */
  readonly config: Readonly<Record<string, unknown>>;
  /**
   * Suffix in the file of each parameter that is saved, by the parameter's name. When absent the trainable ones are saved, under
   * their own suffix.
   */
  readonly suffixes?: Readonly<Record<string, string>>;
  /** A layer's tensors by suffix, where they are not its parameters as they are; `suffixes` does not count then. */
  layer?(values: AdapterValues): Readonly<Record<string, PeftTensor>>;
  /** Further fields of adapter_config.json, which depend on what was trained. */
  trainedConfig?(layers: readonly AdapterValues[]): Readonly<Record<string, unknown>>;
  /** Tensors that belong to no layer, by their whole key, made of the parameters shared by all layers. */
  network?(shared: (name: string) => Float32Array): Readonly<Record<string, PeftTensor>>;
}

/** A tensor of a file, f32. */
export interface PeftTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** A low-rank update W + scale B A that means the same. */
export interface PlainLora {
  readonly rank: number;
  readonly scale: number;
  /** [rank, in] */
  readonly a: Float32Array;
  /** [out, rank] */
  readonly b: Float32Array;
}

/** See {@linkcode defineAdapter}. */
export interface AdapterDefinition<Schema extends OptionsSchema = OptionsSchema>
  extends PluginHeader<Schema> {
  /** Parameters of one layer. */
  parameters(
    layer: AdaptedLayer,
    settings: AdapterSettings,
    options: z.output<Schema>,
    model: AdaptedModel,
  ): readonly ParameterDefinition[];
  /** Parameters shared by all layers. */
  shared?(
    layers: readonly AdaptedLayer[],
    settings: AdapterSettings,
    options: z.output<Schema>,
    model: AdaptedModel,
  ): readonly ParameterDefinition[];
  /** Output of the adapted layer, f32 [T, out]. */
  forward(inputs: AdapterInputs<z.output<Schema>>): Tensor;
  /**
   * Output of the experts of a mixture, f32 [S, out]; absent where the adapter knows linear layers only. `parameters` is asked for those of
   * one expert, each a matrix that begins constant or at random, and `merge` is told the values and the weight of one. Must give for every
   * expert what `forward` gives without dropout.
   */
  experts?(inputs: ExpertAdapterInputs<z.output<Schema>>): Tensor;
  /** Learning-rate ratio and weight decay (on or off) of the optimiser groups; 1 and on for groups not named. */
  groups?(
    settings: AdapterSettings,
    options: z.output<Schema>,
  ): Readonly<Record<string, { readonly learningRateRatio?: number; readonly weightDecay?: boolean }>>;
  /**
   * A penalty on the parameters, f32 [1], added to the objective once an optimiser step, however many micro-batches it has. Its
   * gradient comes from autograd, before clipping; its value is reported with the losses.
   */
  penalty?(inputs: NetworkInputs<z.output<Schema>>): Tensor;
  /** States of one layer. */
  states?(
    layer: AdaptedLayer,
    settings: AdapterSettings,
    options: z.output<Schema>,
  ): readonly StateDefinition[];
  /** States shared by all layers. */
  sharedStates?(
    layers: readonly AdaptedLayer[],
    settings: AdapterSettings,
    options: z.output<Schema>,
  ): readonly StateDefinition[];
  /** Assigns states and parameters after the optimiser, once a step; see `tensor.assign`. */
  afterUpdate?(inputs: UpdateInputs<z.output<Schema>>): void;
  /** Numbers of a step that `afterUpdate` reads. A pure function of the step, which counts from 1. */
  scalars?(
    step: number,
    layers: readonly AdaptedLayer[],
    settings: AdapterSettings,
    options: z.output<Schema>,
  ): Readonly<Record<string, number>>;
  /**
   * The merged weight [out, in] from the frozen one, on the host; must give what `forward` gives without dropout and noise. Absent
   * where no weight does, as the update depends on the input.
   */
  merge?(weight: Float32Array, values: AdapterValues<z.output<Schema>>): Float32Array;
  /** PEFT's layout of it; absent where PEFT has no such method. */
  peft?(settings: AdapterSettings, options: z.output<Schema>): PeftLayout;
  /** The plain LoRA that means the same, where there is one: what other programs can load. */
  plainLora?(values: AdapterValues<z.output<Schema>>): PlainLora;
  /**
   * What it takes into account beside the rank. A recipe that sets any of the others is refused, so that no setting is
   * silently without effect.
   */
  readonly settings?: readonly AdapterSetting[];
  /** Whether `forward` calls `prompt()`: then all data must have prompts. */
  readonly readsPrompt?: boolean;
  /** Ids of adapters it may share a layer with. Any other combination is refused. */
  readonly combinesWith?: readonly string[];
  /** Suffixes its parameters may have, over all options: two adapters may not share one. */
  readonly suffixes: readonly string[];
}

/** A registered adapter. */
export interface Adapter extends AdapterDefinition {
  readonly kind: "adapter";
}

/**
 * An adapter of linear layers.
 *
 * @example Low-rank adaptation (arXiv 2106.09685): y = W x + (alpha / rank) B A x
 * ```ts
 * import { z } from "zod";
 * import { CONTRACT_VERSION, defineAdapter, tensor } from "./contract.ts";
 *
 * export default defineAdapter({
 *   id: "ada/low-rank",
 *   version: "1.0.0",
 *   contract: CONTRACT_VERSION,
 *   options: z.strictObject({}),
 *   settings: ["alpha", "dropout", "loraPlusRatio"],
 *   suffixes: ["low_rank_A.weight", "low_rank_B.weight"],
 *   parameters: ({ inFeatures, outFeatures, rank }) => [{
 *     name: "A",
 *     suffix: "low_rank_A.weight",
 *     shape: [rank, inFeatures],
 *     initialisation: { kind: "uniform", bound: 1 / Math.sqrt(inFeatures) },
 *   }, {
 *     name: "B",
 *     suffix: "low_rank_B.weight",
 *     shape: [outFeatures, rank],
 *     initialisation: { kind: "constant", value: 0 },
 *     group: "B",
 *   }],
 *   groups: ({ loraPlusRatio }) => ({ B: { learningRateRatio: loraPlusRatio } }),
 *   forward({ x, base, parameter, dropout, layer }) {
 *     const inner = tensor.linear(dropout(x), parameter("A"));
 *     return tensor.add(base(), tensor.scale(tensor.linear(inner, parameter("B")), layer.alpha / layer.rank));
 *   },
 *   merge(weight, { parameter, layer: { inFeatures, outFeatures, rank, alpha } }) {
 *     const [a, b, merged] = [parameter("A"), parameter("B"), Float32Array.from(weight)];
 *     for (let o = 0; o < outFeatures; o++) {
 *       for (let i = 0; i < inFeatures; i++) {
 *         let sum = 0;
 *         for (let k = 0; k < rank; k++) sum += b[o * rank + k]! * a[k * inFeatures + i]!;
 *         merged[o * inFeatures + i]! += alpha / rank * sum;
 *       }
 *     }
 *     return merged;
 *   },
 *   peft: ({ rank, alpha }) => ({
 *     peftType: "LORA",
 *     config: { r: rank, lora_alpha: alpha },
 *     suffixes: { A: "lora_A.weight", B: "lora_B.weight" },
 *   }),
 *   plainLora: ({ parameter, layer: { rank, alpha } }) => ({
 *     rank,
 *     scale: alpha / rank,
 *     a: parameter("A"),
 *     b: parameter("B"),
 *   }),
 * });
 * ```
 */
export function defineAdapter<Schema extends OptionsSchema>(definition: AdapterDefinition<Schema>): Adapter {
  return { ...definition as unknown as AdapterDefinition, kind: "adapter" };
}
