/**
 * YaRN (Peng et al., arXiv 2309.00071): rotary frequencies stretched for longer contexts, slow ones as a whole, fast ones not at all, and
 * those between by a part; by the formulas of transformers' `_compute_yarn_parameters`.
 *
 * @module
 */

/** What a config says of it. */
export interface Yarn {
  readonly type: "yarn";
  /** How far the context was stretched; the ratio of the new one to the original where the file says null. */
  readonly factor: number | undefined;
  /** Tokens of the context before; all of the config's where the file says nothing. */
  readonly originalContext: number | undefined;
  /** What cosines and sines are multiplied by. */
  readonly attentionFactor: number | undefined;
  /** Weights of log(factor) in what they are multiplied by otherwise, where both are given. */
  readonly scales: readonly [number, number] | undefined;
  /** Turns within the original context from which on frequencies stay, and up to which they are divided by the whole factor. */
  readonly fast: number;
  readonly slow: number;
  /** Whether the frequencies between which the blend lies are whole numbers. */
  readonly truncated: boolean;
}

/**
 * The frequencies, and what cosines and sines are multiplied by.
 *
 * @param plain theta^(-2 i / dimension) for each pair i
 * @param dimension Values of a head that are rotated
 * @param contextLength `max_position_embeddings`
 */
export function yarnFrequencies(
  plain: Float64Array,
  { factor, originalContext, attentionFactor, scales, fast, slow, truncated }: Yarn,
  { theta, dimension, contextLength }: {
    readonly theta: number;
    readonly dimension: number;
    readonly contextLength: number;
  },
): { inverseFrequencies: Float64Array; attentionScaling: number } {
  const original = originalContext ?? contextLength;
  const stretch = factor ?? contextLength / original;
  const place = (turns: number) =>
    dimension * Math.log(original / (2 * Math.PI * turns)) / (2 * Math.log(theta));
  const [first, last] = truncated
    ? [Math.floor(place(fast)), Math.ceil(place(slow))]
    : [place(fast), place(slow)];
  const [low, high] = [Math.max(first, 0), Math.min(last, dimension - 1)];
  const width = low === high ? 0.001 : high - low;
  return {
    inverseFrequencies: plain.map((frequency, i) => {
      const share = Math.min(1, Math.max(0, (i - low) / width));
      return frequency / stretch * share + frequency * (1 - share);
    }),
    attentionScaling: attentionFactor ??
      (scales ? weight(stretch, scales[0]) / weight(stretch, scales[1]) : weight(stretch, 1)),
  };
}

function weight(stretch: number, scale: number): number {
  return stretch <= 1 ? 1 : 0.1 * scale * Math.log(stretch) + 1;
}
