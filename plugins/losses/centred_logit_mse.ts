/**
 * Mean squared difference of logits, each row's mean taken off: a constant added to all logits changes no probability.
 *
 * Kim et al., "Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in Knowledge Distillation", arXiv 2105.08919, for
 * the difference of logits as a loss; taking off the means is our own addition. Temperature has no effect.
 *
 * @module
 */
import {
  CONTRACT_VERSION,
  defineDivergence,
  type Divergence,
  noOptions,
} from "../../src/registry/contract.ts";

const centredLogitMse: Divergence = defineDivergence({
  id: "centred-logit-mse",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Mean squared difference of logits, each row centred; needs finite logits",
  source: "arXiv 2105.08919 (centring added)",
  options: noOptions,
  value({ studentLogit, teacherLogit, sum, vocabulary }) {
    const difference = studentLogit.sub(teacherLogit);
    return sum(difference.sub(sum(difference).div(vocabulary)).square()).div(vocabulary);
  },
});

export default centredLogitMse;
