/**
 * Skew KL divergence KL(p || lambda p + (1 - lambda) q): forward KL whose gradient stays bounded where the student gives next
 * to nothing.
 *
 * Ko et al., "DistiLLM", arXiv 2402.03898.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineDivergence, type Divergence } from "../../src/registry/contract.ts";
import { logMixture } from "./log_mixture.ts";
import { skewCurriculum } from "./skew_curriculum.ts";

const skewKl: Divergence = defineDivergence({
  id: "skew-kl",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Forward KL to a mixture of student and teacher: bounded gradients",
  source: "arXiv 2402.03898",
  options: z.strictObject({
    lambda: z.number().gt(0).lt(1).default(0.1).describe(
      "Share of the teacher in the mixture; may be scheduled",
    ),
    curriculum: z.boolean().default(false).describe(
      "Lowers lambda as the student nears the teacher, after DistiLLM-2; for samples that the teacher wrote",
    ),
  }),
  scheduled: ["lambda"],
  controller: skewCurriculum("teacher"),
  term: ({ p, logP, logQ, options: { lambda } }) => p.mul(logP.sub(logMixture(lambda, logP, logQ))),
});

export default skewKl;
