/**
 * The mean direction of several models with the mean of their lengths.
 *
 * mergekit's own method (no paper). With u_i = W_i / |W_i|, or (W_i - W_0) / |W_i - W_0| where there is a base,
 * W = (W_0 +) sum_i w_i |W_i| m, m = sum_i w_i u_i / |sum_i w_i u_i|. What it then does in the tangent space at m adds nothing:
 * sum_i w_i (u_i - <u_i, m> m) = 0, because m is along sum_i w_i u_i.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineMerge, type Merge } from "../../src/registry/contract.ts";
import { differences } from "./differences.ts";
import { products } from "./vectors.ts";
import { normalized, weightedSum } from "./weighted_sum.ts";

const multislerp: Merge = defineMerge({
  id: "multislerp",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description:
    "Mean direction of several models, or of their changes to a base, with the mean of their lengths",
  source: "mergekit",
  options: z.strictObject({
    normalizeWeights: z.boolean().default(true).describe("Divide the weights by their sum"),
    eps: z.number().min(0).default(1e-8)
      .describe("Where the mean direction is shorter, the weighted sum is taken instead"),
  }),
  parentOptions: z.strictObject({ weight: z.number().default(1).describe("Share of the parent") }),
  base: "optional",
  parents: { least: 2 },
  unit: "tensor",
  identities: { symmetric: true, first: { parents: [{}, { weight: 0 }] } },
  merge({ name, base, parents, options: { normalizeWeights, eps } }) {
    const vectors = base ? differences(base, parents) : parents.map(({ values }) => values);
    const own = parents.map(({ options }) => options.weight);
    const weights = normalizeWeights ? normalized(own, "multislerp", name) : own;
    const inner = products(vectors);
    const lengths = inner.map((row, i) => Math.sqrt(row[i]!));
    const onUnit = weights.map((w, i) => (lengths[i]! > 0 ? w / lengths[i]! : 0));
    const square = onUnit.reduce(
      (sum, a, i) => onUnit.reduce((s, b, j) => s + a * b * inner[i]![j]!, sum),
      0,
    );
    const direction = Math.sqrt(Math.max(0, square));
    const length = weights.reduce((sum, w, i) => sum + w * lengths[i]!, 0);
    const factors = direction > eps ? onUnit.map((w) => w * length / direction) : weights;
    return weightedSum([...vectors, ...(base ? [base] : [])], [...factors, 1]);
  },
});

export default multislerp;
