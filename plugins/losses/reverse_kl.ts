/**
 * Reverse Kullback-Leibler divergence KL(q || p): the learner concentrates where the target is likely.
 *
 * Gu et al., "MiniLLM", arXiv 2306.08543 (here over the full vocabulary at each position).
 *
 * @module
 */
import {
  CONTRACT_VERSION,
  defineDivergence,
  type Divergence,
  noOptions,
} from "../../src/registry/contract.ts";

const reverseKl: Divergence = defineDivergence({
  id: "reverse-kl",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "KL(student || teacher): the student seeks the teacher's modes",
  source: "arXiv 2306.08543",
  options: noOptions,
  term: ({ q, logP, logQ }) => q.mul(logQ.sub(logP)),
});

export default reverseKl;
