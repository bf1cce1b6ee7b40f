/**
 * Cross-entropy with the teacher's distribution: -sum p log q. The gradient is that of forward KL; the value is larger by the
 * teacher's entropy, so it does not end at 0.
 *
 * Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv 1503.02531
 *
 * @module
 */
import {
  CONTRACT_VERSION,
  defineDivergence,
  type Divergence,
  noOptions,
} from "../../src/registry/contract.ts";

const softCrossEntropy: Divergence = defineDivergence({
  id: "soft-cross-entropy",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Cross-entropy with the teacher's distribution: forward KL plus the teacher's entropy",
  source: "arXiv 1503.02531",
  options: noOptions,
  term: ({ p, logQ }) => p.mul(logQ).neg(),
});

export default softCrossEntropy;
