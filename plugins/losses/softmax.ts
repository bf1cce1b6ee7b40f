/**
 * Probabilities of a row in f64, for references.
 *
 * @module
 */

/** softmax(z / temperature); of -inf 0. */
export function softmax(logits: Float64Array, temperature: number): Float64Array {
  const highest = logits.reduce((a, b) => Math.max(a, b));
  const e = logits.map((z) => Math.exp((z - highest) / temperature));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / sum);
}
