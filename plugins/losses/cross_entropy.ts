/**
 * Cross-entropy with the label: -log q(label), with optional label smoothing.
 *
 * Smoothing as in Szegedy et al., arXiv 1512.00567: the label's share is 1 - epsilon, and epsilon is spread evenly over the whole
 * vocabulary.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineDivergence, type Divergence } from "../../src/registry/contract.ts";

const crossEntropy: Divergence = defineDivergence({
  id: "cross-entropy",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "-log of the probability that the student gives to the label",
  source: "arXiv 1512.00567 (label smoothing)",
  options: z.strictObject({
    labelSmoothing: z.number().min(0).lt(1).default(0).describe("Share spread evenly over the vocabulary"),
  }),
  value({ logQ, atLabel, sum, vocabulary, options: { labelSmoothing } }) {
    const hard = atLabel(logQ).neg();
    if (labelSmoothing === 0) return hard;
    return hard.mul(1 - labelSmoothing).sub(sum(logQ).mul(labelSmoothing).div(vocabulary));
  },
});

export default crossEntropy;
