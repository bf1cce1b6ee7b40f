/**
 * Total variation distance: half the sum of |p - q|. Bounded by 1; without gradient where the student is surely wrong.
 *
 * Wen et al., "f-Divergence Minimization for Sequence-Level Knowledge Distillation", arXiv 2307.15190 (there over sequences, here
 * at each position).
 *
 * @module
 */
import {
  abs,
  CONTRACT_VERSION,
  defineDivergence,
  type Divergence,
  noOptions,
} from "../../src/registry/contract.ts";

const totalVariation: Divergence = defineDivergence({
  id: "total-variation",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Half the sum of absolute differences of probabilities; bounded",
  source: "arXiv 2307.15190 (at each position)",
  options: noOptions,
  term: ({ p, q }) => abs(q.sub(p)).mul(0.5),
});

export default totalVariation;
