/**
 * The weighted mean of models.
 *
 * Wortsman et al., "Model soups", arXiv 2203.05482: W = sum_i w_i W_i / sum_i w_i.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineMerge, type Merge } from "../../src/registry/contract.ts";
import { normalized, weightedSum } from "./weighted_sum.ts";

const linear: Merge = defineMerge({
  id: "linear",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Weighted mean of models",
  source: "arXiv 2203.05482",
  options: z.strictObject({
    normalize: z.boolean().default(true).describe("Divide by the sum of the weights"),
  }),
  parentOptions: z.strictObject({ weight: z.number().default(1).describe("Share of the parent") }),
  base: "none",
  parents: { least: 1 },
  unit: "entries",
  identities: { symmetric: true, first: { parents: [{}, { weight: 0 }] } },
  merge({ name, parents, options: { normalize } }) {
    const weights = parents.map(({ options }) => options.weight);
    return weightedSum(
      parents.map(({ values }) => values),
      normalize ? normalized(weights, "linear", name) : weights,
    );
  },
});

export default linear;
