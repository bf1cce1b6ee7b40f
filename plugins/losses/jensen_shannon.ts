/**
 * Generalised Jensen-Shannon divergence: beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q.
 *
 * Agarwal et al., "On-Policy Distillation of Language Models" (GKD), arXiv 2306.13649 Both ends are KLs by definition,
 * as in TRL: beta = 0 is KL(p || q), beta = 1 is KL(q || p). Between them the divergence goes to 0 at either end, so it jumps
 * there; `normalize` divides by beta (1 - beta), which makes the ends its limits (our own addition).
 *
 * @module
 */
import { z } from "zod";
import {
  constant,
  CONTRACT_VERSION,
  defineDivergence,
  type Divergence,
} from "../../src/registry/contract.ts";
import { logMixture } from "./log_mixture.ts";

const jensenShannon: Divergence = defineDivergence({
  id: "jensen-shannon",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Generalised Jensen-Shannon divergence: between forward and reverse KL, and bounded",
  source: "arXiv 2306.13649; ends as in TRL",
  options: z.strictObject({
    beta: z.number().min(0).max(1).default(0.5).describe(
      "Share of the teacher in the mixture; 0: forward KL, 1: reverse KL",
    ),
    normalize: z.boolean().default(false).describe(
      "Divides by beta (1 - beta), so that the ends are limits; not part of the paper",
    ),
  }),
  term({ p, q, logP, logQ, options: { beta, normalize } }) {
    if (beta === 0) return p.mul(logP.sub(logQ));
    if (beta === 1) return q.mul(logQ.sub(logP));
    const logM = logMixture(constant(beta), logP, logQ);
    const value = p.mul(logP.sub(logM)).mul(beta).add(q.mul(logQ.sub(logM)).mul(1 - beta));
    return normalize ? value.div(beta * (1 - beta)) : value;
  },
});

export default jensenShannon;
