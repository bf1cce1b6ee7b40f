/**
 * Takes over from another model what it changed most, by a measure of importance.
 *
 * Arcee's method as in mergekit (no paper): importance = |D| KL(softmax(W row) || softmax(W_0 row)), 1e-8 added to either probability;
 * changes D = W - W_0 are kept where it reaches median + 1.5 (q3 - q1) of the tensor, the quantile f being sorted[int(f (n - 1))].
 * mergekit takes the quantiles of tensors above a million entries from a random sample; here they are of all.
 *
 * @module
 */
import { CONTRACT_VERSION, defineMerge, type Merge, noOptions } from "../../src/registry/contract.ts";
import { nthMagnitude } from "./magnitudes.ts";
import { rowLength } from "./vectors.ts";

const arceeFusion: Merge = defineMerge({
  id: "arcee-fusion",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Takes over another model's most important changes",
  source: "mergekit",
  options: noOptions,
  parentOptions: noOptions,
  base: "required",
  parents: { least: 1, most: 1 },
  unit: "tensor",
  merge({ shape, base, parents }) {
    const { values } = parents[0]!;
    const importance = importances(base!, values, rowLength(shape));
    // Ascending place k is descending place n - k.
    const quantile = (f: number) =>
      nthMagnitude(importance, importance.length - Math.floor(f * (importance.length - 1)));
    const threshold = quantile(0.5) + 1.5 * (quantile(0.75) - quantile(0.25));
    for (let i = 0; i < values.length; i++) if (importance[i]! < threshold) values[i] = base![i]!;
    return values;
  },
});

/** |D| times the divergence of the row it is in. */
function importances(base: Float32Array, values: Float32Array, width: number): Float32Array {
  const importance = new Float32Array(values.length);
  const [p, q] = [new Float64Array(width), new Float64Array(width)];
  for (let from = 0; from < values.length; from += width) {
    softmax(values, from, p);
    softmax(base, from, q);
    let divergence = 0;
    for (let j = 0; j < width; j++) divergence += p[j]! * Math.log(p[j]! / q[j]!);
    for (let i = from; i < from + width; i++) {
      importance[i] = Math.max(0, Math.abs(values[i]! - base[i]!) * divergence);
    }
  }
  return importance;
}

/** Probabilities of a row, 1e-8 added to each. */
function softmax(values: Float32Array, from: number, row: Float64Array): void {
  let highest = -Infinity;
  for (let j = 0; j < row.length; j++) highest = Math.max(highest, values[from + j]!);
  let sum = 0;
  for (let j = 0; j < row.length; j++) sum += row[j] = Math.exp(values[from + j]! - highest);
  for (let j = 0; j < row.length; j++) row[j] = row[j]! / sum + 1e-8;
}

export default arceeFusion;
