/**
 * The hyperparameters of a model, as far as GGUF files have a place for them.
 *
 * @module
 */

/** The hyperparameters of a model; a `DecoderConfig` has them. */
export interface GgufHyperparameters {
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly attentionHeads: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly vocabularySize: number;
  readonly normEpsilon: number;
  readonly contextLength: number;
  readonly tiedHead?: boolean;
  readonly bosToken?: number;
  readonly eosTokens: readonly number[];
  readonly ropeTheta: number;
  readonly inverseFrequencies: Float64Array;
  readonly attentionScaling?: number;
  /** What sets the family apart; absent for plain Llama. A `DescribedConfig` has it. */
  readonly description?: GgufDescription;
}

/** The part of a decoder's description that hyperparameters follow from. */
export interface GgufDescription {
  readonly embeddingScale?: number;
  readonly logitScale?: number;
  readonly logitSoftCap?: number;
  readonly layers: readonly GgufLayer[];
}

/** A layer of it. */
export interface GgufLayer {
  readonly residualScale?: number;
  readonly parallel?: boolean;
  readonly attention: {
    readonly scale: number;
    readonly softCap?: number;
    readonly window?: number;
    readonly rotary?: { readonly rotary: GgufRotary };
  };
  readonly mlp: {
    readonly kind: string;
    readonly width: number;
    readonly count?: number;
    readonly perToken?: number;
  };
}

/** Rotary positions. */
export interface GgufRotary {
  readonly theta: number;
  readonly width: number;
  readonly inverseFrequencies: Float64Array;
  readonly attentionScaling: number;
  readonly long?: { readonly beyond: number; readonly inverseFrequencies: Float64Array };
}

/** The first layer for which something is defined, or undefined. */
export function ofLayers<T>(
  { description }: GgufHyperparameters,
  pick: (layer: GgufLayer) => T | undefined,
): T | undefined {
  for (const layer of description?.layers ?? []) {
    const found = pick(layer);
    if (found !== undefined) return found;
  }
  return undefined;
}
