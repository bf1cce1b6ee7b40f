/**
 * What a decoder computes, as data: how families of models differ. {@linkcode traceDecoder} of `trace.ts` is the one function behind all
 * of them. Names of modules are those within a layer, such as `self_attn.q_proj`.
 *
 * @module
 */
import type { Activation } from "../../tensor/ops/activation.ts";
import type { DecoderConfig } from "../config.ts";
import type { Rotary } from "../rope.ts";

/** A config, and what its decoder computes. */
export interface DescribedConfig extends DecoderConfig {
  readonly description: DecoderDescription;
}

/** Whether a family's config has a description. */
export function isDescribed(config: DecoderConfig): config is DescribedConfig {
  return "description" in config;
}

/** A decoder: embeddings, layers, a norm, a head. */
export interface DecoderDescription {
  /** What token embeddings are multiplied by; 1 when absent. */
  readonly embeddingScale?: number;
  /** Learned positions that are added to the embeddings: a tensor [rows, hiddenSize] by its whole name. */
  readonly positions?: { readonly name: string; readonly rows: number };
  readonly layers: readonly LayerDescription[];
  /** The norm before the head, by its whole name. */
  readonly finalNorm: NormDescription;
  /** What logits are multiplied by; 1 when absent. */
  readonly logitScale?: number;
  /** Logits are bent towards it: cap * tanh(logit / cap). */
  readonly logitSoftCap?: number;
}

/** A layer: x' = x + attention(x), then x' + mlp(x'), with norms before or after each. */
export interface LayerDescription {
  readonly attention: AttentionDescription;
  readonly mlp: MlpDescription;
  readonly norms: LayerNorms;
  /** What the output of each of the two is multiplied by before it is added; 1 when absent. */
  readonly residualScale?: number;
  /** Whether the MLP reads the layer's input too, rather than what attention has made of it. */
  readonly parallel?: boolean;
}

/** Where a layer has norms. */
export interface LayerNorms {
  readonly beforeAttention?: NormDescription;
  readonly afterAttention?: NormDescription;
  readonly beforeMlp?: NormDescription;
  readonly afterMlp?: NormDescription;
}

/**
 * `rms`: root mean square norm times a weight. `rms + 1`: times one more than the weight. `layer`: mean and variance, a weight and a bias
 * (Ba et al., arXiv 1607.06450).
 */
export type NormKind = "rms" | "rms + 1" | "layer";

/** A norm. */
export interface NormDescription {
  readonly kind: NormKind;
  /** Module path; its tensors are `.weight` and, for `layer`, `.bias`. */
  readonly name: string;
  readonly epsilon: number;
}

/** A linear layer of the files. */
export interface LinearDescription {
  readonly name: string;
  readonly bias: boolean;
}

/** Attention. Numbers of heads and their width stand in the config. */
export interface AttentionDescription {
  readonly projections: Projections;
  readonly output: LinearDescription;
  /** Norms of queries and keys, before they are rotated: over each head, or over all heads together. */
  readonly queryNorm?: NormDescription;
  readonly keyNorm?: NormDescription;
  readonly normsOver?: "head" | "row";
  /** Absent where queries and keys are not rotated. */
  readonly rotary?: RotaryTable;
  /** A query sees this many keys, itself included; all when absent. */
  readonly window?: number;
  /** Scores are bent towards it, before the mask: cap * tanh(score / cap). */
  readonly softCap?: number;
  /** What scores are multiplied by. */
  readonly scale: number;
}

/** The linear layers that make queries, keys and values: three, or one whose outputs are split. */
export type Projections =
  | {
    readonly queries: LinearDescription;
    readonly keys: LinearDescription;
    readonly values: LinearDescription;
  }
  | {
    readonly fused: LinearDescription;
    /** `parts`: all queries, then all keys, then all values. `heads`: for each head its queries, keys and values. */
    readonly order: "parts" | "heads";
  };

/** Rotary positions, by the name of their table. Layers with equal tables share one. */
export interface RotaryTable {
  readonly name: string;
  readonly rotary: Rotary;
}

/** The MLP: gated, gated with one layer for gate and up, plain, or a mixture of gated experts. */
export type MlpDescription =
  & { readonly activation: Activation; readonly width: number }
  & (
    | {
      readonly kind: "gated";
      readonly gate: LinearDescription;
      readonly up: LinearDescription;
      readonly down: LinearDescription;
    }
    | {
      readonly kind: "fused";
      /** Its outputs are those of the gate, then those of up. */
      readonly gateUp: LinearDescription;
      readonly down: LinearDescription;
    }
    | { readonly kind: "plain"; readonly up: LinearDescription; readonly down: LinearDescription }
    | ExpertsDescription
  );

/** A mixture of experts, each a gated MLP of `width` channels; each token goes to some of them. */
export interface ExpertsDescription {
  readonly kind: "experts";
  /** Module path of the router [experts, hiddenSize]. */
  readonly router: string;
  /** What stands before an expert's number in the names of its layers, without the dot. */
  readonly experts: string;
  readonly count: number;
  /** Experts of a token. */
  readonly perToken: number;
  /** Whether the weights of a token's experts are made to sum to one. */
  readonly normalised: boolean;
  readonly gate: string;
  readonly up: string;
  readonly down: string;
}
