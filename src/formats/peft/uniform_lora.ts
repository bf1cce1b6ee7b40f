/**
 * LoRA as the formats know it that have one rank and one scale for a whole file.
 *
 * @module
 */

/** W + scale B A on every layer. */
export interface UniformLora {
  readonly rank: number;
  readonly scale: number;
  readonly layers: readonly UniformLoraLayer[];
}

/** One layer of it, under its module path: `model.layers.0.self_attn.q_proj`. */
export interface UniformLoraLayer {
  readonly path: string;
  /**
   * Where it is a module of a mixture's experts, how many they are: the path is that of the first, a and b are of all of them, one after
   * another. Only GGUF has a form for it.
   */
  readonly experts?: number;
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** [rank, in], or [experts, rank, in] */
  readonly a: Float32Array<ArrayBuffer>;
  /** [out, rank], or [experts, out, rank] */
  readonly b: Float32Array<ArrayBuffer>;
  /** DoRA (arXiv 2402.09353): the lengths of the rows of the adapted weight, [out]. */
  readonly magnitude?: Float32Array<ArrayBuffer>;
}
