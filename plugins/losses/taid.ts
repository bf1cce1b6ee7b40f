/**
 * Temporally adaptive interpolated distillation: cross-entropy with a target that moves from the student to the teacher,
 * u = softmax((1 - t) sg(z) + t zT).
 *
 * Shing et al., "TAID", arXiv 2501.16937, in the cross-entropy form of its code. The paper also moves t by the change of
 * the loss; here t follows the recipe's schedule alone, which is a function of the step.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineDivergence, type Divergence, exp } from "../../src/registry/contract.ts";

const taid: Divergence = defineDivergence({
  id: "taid",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Cross-entropy with a target between student (t = 0) and teacher (t = 1); schedule t",
  source: "arXiv 2501.16937, without its adaptive update of t",
  options: z.strictObject({
    t: z.number().min(0).max(1).default(0.4).describe(
      "Share of the teacher's logits; meant to be scheduled up to 1",
    ),
  }),
  scheduled: ["t"],
  term({ logP, logQ, logSumExp, options: { t } }) {
    const logits = logQ.detach().mul(t.neg().add(1)).add(logP.mul(t));
    return exp(logits.sub(logSumExp(logits))).mul(logQ).neg();
  },
});

export default taid;
