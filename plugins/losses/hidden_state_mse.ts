/**
 * Squared distance of hidden states: mean over the teacher's width of (W h - hᵀ)², mean over pairs of layers.
 *
 * FitNets (Romero et al., arXiv 1412.6550) with a linear regressor; for transformers TinyBERT (Jiao et al., arXiv 1909.10351).
 *
 * @module
 */
import { type FeatureLoss, tensor } from "../../src/registry/contract.ts";
import { hiddenStateLoss } from "./hidden_states.ts";

const hiddenStateMse: FeatureLoss = hiddenStateLoss(
  "hidden-state-mse",
  "Mean squared difference of the hidden states behind pairs of layers",
  "arXiv 1412.6550, arXiv 1909.10351",
  (student, teacher) =>
    tensor.scale(
      tensor.sumColumns(tensor.pointwise([student, teacher], (s, t) => s!.sub(t!).square())),
      1 / teacher.dim(1),
    ),
);

export default hiddenStateMse;
