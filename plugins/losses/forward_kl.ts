/**
 * Forward Kullback-Leibler divergence KL(p || q): the learner must cover all that the target does.
 *
 * Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv 1503.02531 (there with a factor temperature^2, here
 * without).
 *
 * @module
 */
import {
  CONTRACT_VERSION,
  defineDivergence,
  type Divergence,
  noOptions,
} from "../../src/registry/contract.ts";

const forwardKl: Divergence = defineDivergence({
  id: "forward-kl",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "KL(teacher || student): the student learns to cover the teacher's distribution",
  source: "arXiv 1503.02531",
  options: noOptions,
  term: ({ p, logP, logQ }) => p.mul(logP.sub(logQ)),
});

export default forwardKl;
