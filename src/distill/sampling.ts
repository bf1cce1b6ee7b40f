/**
 * Choosing the next token from logits: greedy, temperature, top-k and top-p, with counter-based random numbers so that a text
 * depends on (seed, sequence, position) alone.
 *
 * @module
 */
import { philox4x32, splitSeed } from "../text/random.ts";

/** How the next token is chosen. */
export interface SamplingOptions {
  /** Divides the logits; 0 takes the likeliest token always. */
  readonly temperature: number;
  /** Only this many likeliest tokens are drawn from; 0 is all. */
  readonly topK: number;
  /** Only the likeliest tokens whose probabilities sum to at least this are drawn from; 1 is all. */
  readonly topP: number;
  readonly seed: number;
}

/** Distinguishes these random numbers from those of other users of a seed. */
const SITE = 0x73616d70;

/** The index of the largest logit, the first among equals. */
export function argmax(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i;
  return best;
}

/**
 * One token id.
 *
 * Temperature first, then top-k, then top-p over what is left, as llama.cpp and transformers order them. Probabilities are
 * summed in f64.
 *
 * @param sequence Number of the text among those of one seed
 * @param position Number of the token in its text
 */
export function sampleToken(
  logits: Float32Array,
  options: SamplingOptions,
  sequence: number,
  position: number,
): number {
  const { temperature, topK, topP, seed } = options;
  if (temperature === 0) return argmax(logits);
  const cut = topK > 0 && topK < logits.length;
  let ids: number[] | Uint32Array;
  if (cut || topP < 1) {
    ids = Uint32Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b);
    if (cut) ids = ids.subarray(0, topK);
  } else {
    ids = Uint32Array.from(logits.keys());
  }
  const highest = logits[argmax(logits)]!;
  const weights = Float64Array.from(ids, (id) => Math.exp((logits[id]! - highest) / temperature));
  let total = weights.reduce((a, b) => a + b, 0);
  let count = weights.length;
  if (topP < 1) {
    let sum = 0;
    const wanted = topP * total;
    count = 0;
    while (count < weights.length && sum < wanted) sum += weights[count++]!;
    total = sum;
  }
  const [a, b] = philox4x32([position, sequence, 0, SITE], splitSeed(seed));
  // 53 random bits in [0, 1).
  let left = ((a >>> 5) * 2 ** 26 + (b >>> 6)) / 2 ** 53 * total;
  for (let i = 0; i < count; i++) {
    left -= weights[i]!;
    if (left < 0) return ids[i]!;
  }
  return ids[count - 1]!;
}
