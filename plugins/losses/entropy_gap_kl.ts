/**
 * Forward and reverse KL together, weighted at each token by which model is surer.
 *
 * After Amara et al., "BD-KD: Balancing the Divergences for Online Knowledge Distillation", arXiv 2212.12965; its
 * teacher learns too, which is a matter of the objective. The form is our own: the paper weighs samples by the gap of entropies, but its exact weights could not be verified,
 * nor in which direction they switch; hence the option. The paper's cross-entropy is a term of its own in the objective.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineDivergence, type Divergence, select } from "../../src/registry/contract.ts";

const entropyGapKl: Divergence = defineDivergence({
  id: "entropy-gap-kl",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Forward and reverse KL, the one or the other stronger by which model is surer of the token",
  source: "after arXiv 2212.12965; weights are our own form",
  options: z.strictObject({
    delta: z.number().min(1).default(2).describe("Weight of the stronger KL; the other has 1"),
    whenStudentIsFlatter: z.enum(["reverse", "forward"]).default("reverse").describe(
      "Which KL is the stronger where the student's entropy is above the teacher's; elsewhere it is the other",
    ),
  }),
  value({ p, q, logP, logQ, sum, options: { delta, whenStudentIsFlatter } }) {
    const isFlatter = sum(q.mul(logQ)).lessThan(sum(p.mul(logP)));
    const [flat, sharp] = whenStudentIsFlatter === "reverse" ? [1, delta] : [delta, 1];
    const forward = sum(p.mul(logP.sub(logQ)));
    const reverse = sum(q.mul(logQ.sub(logP)));
    return forward.mul(select(isFlatter, flat, sharp)).add(reverse.mul(select(isFlatter, sharp, flat)));
  },
});

export default entropyGapKl;
