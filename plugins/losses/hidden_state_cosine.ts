/**
 * Angle of hidden states: 1 - cos(W h, hᵀ), mean over pairs of layers.
 *
 * The cosine loss between hidden states of DistilBERT (Sanh et al., arXiv 1910.01108).
 *
 * @module
 */
import { type FeatureLoss, tensor } from "../../src/registry/contract.ts";
import { hiddenStateLoss } from "./hidden_states.ts";
import { rowCosines } from "./row_vectors.ts";

const hiddenStateCosine: FeatureLoss = hiddenStateLoss(
  "hidden-state-cosine",
  "One minus the cosine of the hidden states behind pairs of layers",
  "arXiv 1910.01108",
  (student, teacher) => tensor.pointwise([rowCosines(student, teacher)], (cosine) => cosine!.neg().add(1)),
);

export default hiddenStateCosine;
