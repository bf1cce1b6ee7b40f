/**
 * The entropy of the student's distribution as a regulariser: makes the student surer, or less sure with `maximise`.
 *
 * Maximised: Pereyra et al., "Regularizing Neural Networks by Penalizing Confident Output Distributions", arXiv 1701.06548.
 * Minimised: Grandvalet and Bengio, "Semi-supervised Learning by Entropy Minimization", NIPS 2004.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineDivergence, type Divergence } from "../../src/registry/contract.ts";

const entropy: Divergence = defineDivergence({
  id: "entropy",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Entropy of the student: a regulariser of its confidence",
  source: "arXiv 1701.06548",
  options: z.strictObject({
    maximise: z.boolean().default(false).describe("The value is -H(q): training makes the student less sure"),
  }),
  term: ({ q, logQ, options: { maximise } }) => maximise ? q.mul(logQ) : q.mul(logQ).neg(),
});

export default entropy;
