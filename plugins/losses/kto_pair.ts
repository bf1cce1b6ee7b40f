/**
 * Kahneman-Tversky optimisation on pairs, with the teacher as the reference: each text is held against how far the student has moved from
 * the teacher on the other texts of the micro-batch.
 *
 *   1/2 (1 - sigmoid(beta (r(chosen) - z(rejected)))) + 1/2 (1 - sigmoid(beta (z(chosen) - r(rejected))))
 *
 * with r = log q / p of a text and z the mean of r over the texts of its side, at least 0, constant in the gradient. Ethayarajh et al.,
 * arXiv 2402.01306, equation 7 for r and the value function; the pair form, where each side's z stands for the other's KL, is that of the
 * authors' report on human-centred losses and of TRL's `kto_pair`, which averages over texts where here pairs are, hence the halves.
 *
 * @module
 */
import { z } from "zod";
import {
  CONTRACT_VERSION,
  defineDivergence,
  type Divergence,
  max,
  sigmoid,
} from "../../src/registry/contract.ts";
import { logRatio } from "./log_ratio.ts";

const ktoPair: Divergence = defineDivergence({
  id: "kto-pair",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description:
    "Makes chosen texts likelier and rejected ones less so, each against the drift from the teacher on the others",
  source: "arXiv 2402.01306; the form on pairs is TRL's kto_pair",
  options: z.strictObject({
    beta: z.number().gt(0).default(0.1).describe("How strongly the teacher holds the student back"),
  }),
  value: logRatio,
  pairs({ chosen, rejected, chosenMean, rejectedMean, options: { beta } }) {
    // 1 - sigmoid(x) = sigmoid(-x)
    const desirable = sigmoid(max(rejectedMean, 0).sub(chosen).mul(beta));
    const undesirable = sigmoid(rejected.sub(max(chosenMean, 0)).mul(beta));
    return desirable.add(undesirable).mul(0.5);
  },
});

export default ktoPair;
