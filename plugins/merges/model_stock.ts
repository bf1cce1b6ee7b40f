/**
 * The mean of fine-tuned models, drawn towards the base by how much they disagree.
 *
 * Jang et al., "Model Stock", arXiv 2403.19522: W = W_0 + t mean_i D_i, t = N cos / (1 + (N - 1) cos), cos the mean cosine of the pairs
 * of changes D_i = W_i - W_0 of a tensor, or of a row of it. t is not clamped.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineMerge, type Merge } from "../../src/registry/contract.ts";
import { differences } from "./differences.ts";
import { products, rowLength } from "./vectors.ts";
import { weightedSum } from "./weighted_sum.ts";

const modelStock: Merge = defineMerge({
  id: "model-stock",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Mean of models, drawn towards the base by how much their changes disagree",
  source: "arXiv 2403.19522",
  options: z.strictObject({
    filterWise: z.boolean().default(false).describe("By rows of matrices instead of by tensors"),
  }),
  parentOptions: z.strictObject({}),
  base: "required",
  parents: { least: 2 },
  unit: "tensor",
  identities: { symmetric: true },
  merge({ shape, base, parents, options: { filterWise } }) {
    const changes = differences(base!, parents);
    const merged = changes[0]!;
    const width = filterWise && shape.length > 1 ? rowLength(shape) : merged.length;
    for (let from = 0; from < merged.length; from += width) {
      const rows = [...changes, base!].map((values) => values.subarray(from, from + width));
      const share = ratio(products(changes, from, width)) / changes.length;
      weightedSum(rows, [...changes.map(() => share), 1]);
    }
    return merged;
  },
});

/** t, from the products of the changes with one another; a change of 0 is at right angles to all others. */
function ratio(inner: readonly (readonly number[])[]): number {
  const count = inner.length;
  let cosine = 0;
  for (let i = 0; i < count; i++) {
    for (let j = 0; j < i; j++) {
      const length = Math.sqrt(inner[i]![i]!) * Math.sqrt(inner[j]![j]!);
      if (length > 0) cosine += inner[i]![j]! / length;
    }
  }
  cosine /= count * (count - 1) / 2;
  // The denominator is |sum of unit changes|^2 / N: near 0 they cancel, and so does their mean.
  const denominator = 1 + (count - 1) * cosine;
  return denominator > 1e-9 ? count * cosine / denominator : 0;
}

export default modelStock;
