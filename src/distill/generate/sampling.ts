/**
 * Choosing the next token from logits: greedy, temperature, top-k and top-p, with counter-based random numbers so that a text
 * depends on (seed, sequence, position) alone.
 *
 * @module
 */
import { philox4x32, splitSeed } from "../../base/random.ts";

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
  const best = argmax(logits);
  if (temperature === 0) return best;
  const weights = new Float64Array(logits.length);
  let total = 0;
  for (let id = 0; id < logits.length; id++) {
    total += weights[id] = Math.exp((logits[id]! - logits[best]!) / temperature);
  }

  let ids: number[] = [];
  if (topK > 0 && topK < logits.length) {
    const lowest = logits.slice().sort()[logits.length - topK]!;
    for (let id = 0; id < logits.length; id++) if (logits[id]! >= lowest) ids.push(id);
    ids = ids.sort((a, b) => logits[b]! - logits[a]! || a - b).slice(0, topK);
    total = ids.reduce((sum, id) => sum + weights[id]!, 0);
  } else if (topP < 1) {
    // Entries below this share sum to less than 1 - topP together, so none of them is among the likeliest that make up topP.
    const least = total * (1 - topP) / logits.length;
    for (let id = 0; id < logits.length; id++) if (weights[id]! >= least) ids.push(id);
    ids.sort((a, b) => logits[b]! - logits[a]! || a - b);
  } else {
    ids = Array.from(logits.keys());
  }
  if (topP < 1) {
    let sum = 0;
    let count = 0;
    while (count < ids.length && sum < topP * total) sum += weights[ids[count++]!]!;
    ids.length = count;
    total = sum;
  }
  const [a, b] = philox4x32([position, sequence, 0, SITE], splitSeed(seed));
  // 53 random bits in [0, 1).
  let left = ((a >>> 5) * 2 ** 26 + (b >>> 6)) / 2 ** 53 * total;
  for (const id of ids) {
    left -= weights[id]!;
    if (left < 0) return id;
  }
  return ids.at(-1)!;
}
