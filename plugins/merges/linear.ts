/**
 * The weighted mean of models.
 *
 * Wortsman et al., "Model soups", arXiv 2203.05482: W = sum_i w_i W_i / sum_i w_i.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineMerge, type Merge } from "../../src/registry/contract.ts";

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
  identities: { symmetric: true },
  merge({ parents, options: { normalize } }) {
    const sum = parents.reduce((total, { options }) => total + options.weight, 0);
    const [first] = parents;
    const merged = new Float32Array(first!.values.length);
    for (const { values, options } of parents) {
      const weight = normalize ? options.weight / sum : options.weight;
      for (let i = 0; i < merged.length; i++) merged[i]! += weight * values[i]!;
    }
    return merged;
  },
});

export default linear;
