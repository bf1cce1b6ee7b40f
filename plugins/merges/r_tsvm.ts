/**
 * R-TSVM, our reading: TSV-M with weights of parents by their outliers and ranks by their sparsity.
 *
 * "Mix data or merge models?", arXiv 2502.06876 (R-TSVM, in a later version RESM), adds "outlier weighting" and "sparsity-aware rank
 * selection" to TSV-M; we could not read its formulas, and found no code. What is here is a proposal:
 *
 * - o_i = sum of |d| over the entries d of D_i with |d| > mean + 3 deviations of |d|; the singular values of parent i are multiplied by
 *   w_i = T o_i / sum_j o_j (1 where nobody has outliers);
 * - of parent i the round(k T (1 - z_i) / sum_j (1 - z_j)) largest are kept, k = floor(min(rows, columns) / T), where z_i is the share
 *   of entries with |d| < 0.01 max |d|.
 *
 * Where all o_i and all z_i are equal it is TSV-M.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineMerge, type Merge, noOptions } from "../../src/registry/contract.ts";
import { lambda } from "./options.ts";
import { addSingular } from "./singular_tasks.ts";

const DEVIATIONS = 3;
const NEARLY_ZERO = 0.01;

const rTsvm: Merge = defineMerge({
  id: "r-tsvm",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "TSV-M with weights by outliers and ranks by sparsity: our reading, not the paper's formulas",
  source: "a proposal after arXiv 2502.06876 on arXiv 2412.00081",
  options: z.strictObject({ lambda }),
  parentOptions: noOptions,
  base: "required",
  parents: { least: 1 },
  unit: "tensor",
  identities: { symmetric: true, base: { options: { lambda: 0 } }, first: { parents: [{}] } },
  merge: (input) =>
    addSingular(input, input.options.lambda, (changes, share) => {
      const weights = shares(changes.map(outliers));
      const ranks = shares(changes.map((change) => 1 - sparsity(change)));
      return changes.map((change, i) => ({
        change,
        rank: Math.round(share * ranks[i]!),
        weight: weights[i]!,
      }));
    }),
});

/** Numbers scaled so that their mean is 1; all 1 where they add up to 0. */
function shares(numbers: readonly number[]): number[] {
  const sum = numbers.reduce((total, x) => total + x, 0);
  return numbers.map((x) => (sum > 0 ? numbers.length * x / sum : 1));
}

/** The sum of the magnitudes that are far above the others. */
function outliers(change: Float32Array): number {
  let [sum, squares] = [0, 0];
  for (let i = 0; i < change.length; i++) sum += Math.abs(change[i]!);
  const mean = sum / change.length;
  for (let i = 0; i < change.length; i++) squares += (Math.abs(change[i]!) - mean) ** 2;
  const threshold = mean + DEVIATIONS * Math.sqrt(squares / change.length);
  let far = 0;
  for (let i = 0; i < change.length; i++) {
    const size = Math.abs(change[i]!);
    if (size > threshold) far += size;
  }
  return far;
}

/** The share of entries that are nothing beside the largest. */
function sparsity(change: Float32Array): number {
  let largest = 0;
  for (let i = 0; i < change.length; i++) largest = Math.max(largest, Math.abs(change[i]!));
  let small = 0;
  for (let i = 0; i < change.length; i++) if (Math.abs(change[i]!) < NEARLY_ZERO * largest) small++;
  return small / change.length;
}

export default rTsvm;
