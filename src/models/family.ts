/**
 * What a model family is to the rest of the program: one record, in a file of its own in `families/`. Which tensors, linear layers and
 * inner values there are is not said here but found by tracing the decoder; see `architecture.ts`.
 *
 * @module
 */
import type { Tensor } from "../tensor/graph.ts";
import type { DecoderConfig } from "./config.ts";
import type { ModelContext } from "./context.ts";

/** A model family: how a config is read, and what is computed. */
export interface ModelFamily<C extends DecoderConfig = DecoderConfig> {
  readonly name: string;
  /** Of a family that is no built-in one: what changes when its behaviour may. */
  readonly identity?: string;
  /** The classes of transformers that it computes as, each with its `model_type`. */
  readonly architectures: Readonly<Record<string, string>>;
  readonly names: FamilyNames;
  /** The architecture of its GGUF files; absent where there is none. */
  readonly gguf?: string;
  /**
   * Reads a config of one of its architectures.
   *
   * @throws {InputError} on a field that would change the computation and is not understood
   */
  parse(config: Readonly<Record<string, unknown>>, architecture: string, where: string): C;
  /** Tables made on the host, by the name that the decoder asks for; each gives so many rows, f32. */
  tables(config: C): Readonly<Record<string, (rows: number) => Float32Array<ArrayBuffer>>>;
  /**
   * Traces hidden states after the final norm, f32 [T, hiddenSize]. With a cache, keys and values of the stream are written to it, and
   * attention reads all of it; without, attention reads the stream itself. Inner values are shown by the names that losses know, whatever
   * the family calls its layers: `embeddings`, `model.layers.0.queries` and so on, `final_norm`.
   */
  decoder(ctx: ModelContext, config: C): Tensor;
  /** Traces logits f32 [n, vocabularySize] of hidden states x [n, hiddenSize], with what is trained on the head. */
  head(ctx: ModelContext, config: C, x: Tensor): Tensor;
  /** The config of a model of some of its layers, rising; where it is not the same with another number of layers. */
  keepLayers?(config: C, kept: readonly number[]): C;
  /** Fields of config.json with an entry for each layer that the config may leave to a rule, spelled out. */
  layerFields?(config: C): Record<string, unknown>;
  /** Whether its files store the weights of linear layers [in, out], which whoever loads an adapter must know. */
  readonly fanInFanOut?: boolean;
  /** Tensors that old checkpoints hold and that are computed from the config. */
  readonly buffers?: RegExp;
  /** How its layers are made narrower; absent where they cannot be. */
  readonly narrowing?: Narrowing;
}

/** How the layers of a family are made narrower: fewer heads, fewer channels of the MLP. */
export interface Narrowing {
  readonly projections: LayerProjections;
  /**
   * A config.json of the same computation with these widths. With `biases` it is one whose `attentionOutput` and `mlpOutput` have a bias,
   * be it under the name of another architecture; without, biases are those of the config.
   */
  config(config: Readonly<Record<string, unknown>>, widths: Widths): Record<string, unknown>;
}

/** The linear layers of a layer that heads and channels run through, by their names within it, such as `self_attn.q_proj`. */
export interface LayerProjections {
  readonly queries: string;
  readonly keys: string;
  readonly values: string;
  readonly attentionOutput: string;
  /** Those whose outputs are the channels of the MLP. */
  readonly mlpInputs: readonly string[];
  readonly mlpOutput: string;
}

/** Widths of every layer of a model. */
export interface Widths {
  readonly attentionHeads: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly intermediateSize: number;
  readonly biases: boolean;
}

/** Tensors and modules that have a meaning to others, by their Hugging Face names. */
export interface FamilyNames {
  /** The tensor of the token embeddings, f32 [vocabularySize, hiddenSize]. */
  readonly embedding: string;
  /** What stands before the number of a layer in the names of its tensors, without the dot. */
  readonly layers: string;
  /** Module path of the head. */
  readonly head: string;
  /** What mlx-lm has in place of `layers`, where that is not the same. */
  readonly mlxLayers?: string;
}
