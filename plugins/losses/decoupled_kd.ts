/**
 * Decoupled knowledge distillation: forward KL split at the label into KL of (label, rest) and KL among the rest, with a weight
 * of their own.
 *
 * Zhao et al., "Decoupled Knowledge Distillation", arXiv 2203.08679 (there with a factor temperature^2, here without).
 *
 * @module
 */
import { z } from "zod";
import {
  CONTRACT_VERSION,
  defineDivergence,
  type Divergence,
  exp,
  type Expression,
  LOG_FLOOR,
  select,
} from "../../src/registry/contract.ts";

const weight = z.number().min(0);

const decoupledKd: Divergence = defineDivergence({
  id: "decoupled-kd",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Forward KL on the label and among all other tokens, weighted separately",
  source: "arXiv 2203.08679",
  options: z.strictObject({
    target: weight.default(1).describe("Weight of the part on the label (alpha)"),
    others: weight.default(8).describe("Weight of the part among the other tokens (beta)"),
  }),
  value({ logP, logQ, isLabel, atLabel, sum, logSumExp, options: { target, others } }) {
    const [logPy, logQy] = [atLabel(logP), atLabel(logQ)];
    // The rest from its own sum: 1 - q(label) has no digits left where the student is sure.
    const rest = (x: Expression) => logSumExp(select(isLabel, LOG_FLOOR, x));
    const [restP, restQ] = [rest(logP), rest(logQ)];
    const binary = exp(logPy).mul(logPy.sub(logQy)).add(exp(restP).mul(restP.sub(restQ)));
    const among = sum(select(isLabel, 0, exp(logP.sub(restP)).mul(logP.sub(restP).sub(logQ.sub(restQ)))));
    return binary.mul(target).add(among.mul(others));
  },
});

export default decoupledKd;
