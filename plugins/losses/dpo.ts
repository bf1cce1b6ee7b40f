/**
 * Direct preference optimisation with the teacher as the reference: the student is to find the chosen text likelier than the rejected one
 * by more than the teacher does.
 *
 *   -log sigmoid(beta (log q(chosen)/p(chosen) - log q(rejected)/p(rejected)))
 *
 * Rafailov et al., arXiv 2305.18290, equation 7, with label smoothing as in cDPO (Mitchell, "A note on DPO with noisy preferences", 2023).
 *
 * @module
 */
import { z } from "zod";
import {
  CONTRACT_VERSION,
  defineDivergence,
  type Divergence,
  logAddExp,
} from "../../src/registry/contract.ts";
import { logRatio } from "./log_ratio.ts";

const dpo: Divergence = defineDivergence({
  id: "dpo",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Makes the chosen text of a pair likelier than the rejected one by more than the teacher does",
  source: "arXiv 2305.18290, equation 7",
  options: z.strictObject({
    beta: z.number().gt(0).default(0.1).describe("How strongly the teacher holds the student back"),
    labelSmoothing: z.number().min(0).lt(0.5).default(0).describe(
      "Share of pairs that are the wrong way round",
    ),
  }),
  value: logRatio,
  pairs({ chosen, rejected, options: { beta, labelSmoothing } }) {
    const margin = chosen.sub(rejected).mul(beta);
    // -log sigmoid(x) = log(1 + exp(-x))
    const right = logAddExp(0, margin.neg());
    return labelSmoothing === 0
      ? right
      : right.mul(1 - labelSmoothing).add(logAddExp(0, margin).mul(labelSmoothing));
  },
});

export default dpo;
