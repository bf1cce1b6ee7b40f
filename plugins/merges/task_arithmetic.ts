/**
 * The base and a weighted sum of what each parent changed.
 *
 * Ilharco et al., "Editing models with task arithmetic", arXiv 2212.04089: W = W_0 + lambda sum_i w_i (W_i - W_0). With lambda = 1 and one
 * parent of weight 1 on another base it is an instruction residual, arXiv 2410.10739.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineMerge, type Merge } from "../../src/registry/contract.ts";
import { lambda, normalizeOff, weight } from "./options.ts";
import { scaled, weightedSum } from "./weighted_sum.ts";

const taskArithmetic: Merge = defineMerge({
  id: "task-arithmetic",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "The base and a weighted sum of what each parent changed",
  source: "arXiv 2212.04089",
  options: z.strictObject({ lambda, normalize: normalizeOff }),
  parentOptions: z.strictObject({ weight }),
  base: "required",
  parents: { least: 1 },
  unit: "entries",
  identities: { symmetric: true, base: { options: { lambda: 0 } }, first: { parents: [{}, { weight: 0 }] } },
  merge({ name, base, parents, options }) {
    const weights = scaled(parents.map((p) => p.options.weight), options, "task-arithmetic", name);
    const sum = weights.reduce((total, w) => total + w, 0);
    return weightedSum([base!, ...parents.map(({ values }) => values)], [1 - sum, ...weights]);
  },
});

export default taskArithmetic;
