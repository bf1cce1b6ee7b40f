/**
 * Alpha-beta divergence: -1/(a b) sum [p^a q^b - a/(a+b) p^(a+b) - b/(a+b) q^(a+b)].
 *
 * Cichocki et al., "Generalized Alpha-Beta Divergences", Entropy 13 (2011); for distillation Wang et al., "ABKD",
 * arXiv 2505.04560. Forward KL is the limit (1, 0), reverse KL the limit (0, 1).
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineDivergence, type Divergence, exp } from "../../src/registry/contract.ts";

const power = z.number().gt(0).max(4);

const alphaBetaDivergence: Divergence = defineDivergence({
  id: "alpha-beta-divergence",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Two parameters that weigh large errors and the student's confidence separately",
  source: "arXiv 2505.04560",
  options: z.strictObject({
    alpha: power.default(0.2).describe("Power of the teacher's probability"),
    beta: power.default(0.7).describe("Power of the student's probability"),
  }),
  term({ logP, logQ, options: { alpha: a, beta: b } }) {
    // In log space: q^(b - 1) of the closed-form gradient would overflow where q underflows.
    const joint = exp(logP.mul(a).add(logQ.mul(b)));
    const own = exp(logP.mul(a + b)).mul(a / (a + b)).add(exp(logQ.mul(a + b)).mul(b / (a + b)));
    return joint.sub(own).div(-a * b);
  },
});

export default alphaBetaDivergence;
