/**
 * Skew reverse KL divergence KL(q || (1 - lambda) p + lambda q).
 *
 * Ko et al., "DistiLLM", arXiv 2402.03898. With `stopGradient` the student inside the mixture is a constant, as in
 * the code of DistiLLM-2 (arXiv 2503.07067): the same value, another gradient.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineDivergence, detach, type Divergence } from "../../src/registry/contract.ts";
import { logMixture } from "./log_mixture.ts";
import { skewCurriculum } from "./skew_curriculum.ts";

const skewReverseKl: Divergence = defineDivergence({
  id: "skew-reverse-kl",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description:
    "Reverse KL to a mixture of teacher and student: finite where the teacher gives next to nothing",
  source: "arXiv 2402.03898; stopGradient: code of arXiv 2503.07067",
  options: z.strictObject({
    lambda: z.number().gt(0).lt(1).default(0.1).describe(
      "Share of the student in the mixture; may be scheduled",
    ),
    curriculum: z.boolean().default(false).describe(
      "Lowers lambda as the student nears the teacher, after DistiLLM-2; for samples that the student wrote",
    ),
    stopGradient: z.boolean().default(false).describe("Nothing flows back through the mixture"),
  }),
  scheduled: ["lambda"],
  controller: skewCurriculum("student"),
  term: ({ q, logP, logQ, options: { lambda, stopGradient } }) =>
    q.mul(logQ.sub(logMixture(lambda, stopGradient ? detach(logQ) : logQ, logP))),
});

export default skewReverseKl;
