/**
 * Importance weights of tokens that an earlier student has written.
 *
 * Between two rollouts the student changes, so its texts are drawn from an older distribution than the one whose loss is minimised. The
 * weight of a token is the ratio of the two, w = min(q_now(y) / q_then(y), max), constant in the gradient: truncated importance sampling
 * (Ionides, "Truncated Importance Sampling", J. Comput. Graph. Stat. 2008) token by token, as MiniLLM approximates the weight of a prefix
 * (arXiv 2306.08543, section 2.2). Both probabilities are those of softmax(logits / T) at the sampling temperature T, before top-k and
 * top-p, so that the weight is 1 as long as nothing has been learnt.
 *
 * @module
 */
import { exp, min, select } from "../../tensor/expr/mod.ts";
import type { Tensor } from "../../tensor/graph.ts";
import { splitColumns } from "../../tensor/ops/columns.ts";
import { pointwise } from "../../tensor/ops/pointwise.ts";
import { reshape } from "../../tensor/ops/views.ts";
import type { LossSet } from "./loss_sets.ts";

/** Name of the input with the log-probability of each position's label when it was drawn, f32 [T]; above 0 where it was not. */
export const DRAWN_LOG_PROBABILITIES = "onPolicy.logProbabilities";

/** What stands for a log-probability where the label was not drawn. */
export const NOT_DRAWN = 1;

/** One of the values of each position, f32 [T], from what `chunkedLoss` makes of a set of losses. */
export function lossOfRows(values: Tensor, set: Pick<LossSet, "names">, name: string): Tensor {
  const chunkRows = values.dim(1) / set.names.length;
  const own = splitColumns(values, set.names.map(() => chunkRows))[set.names.indexOf(name)]!;
  return reshape(own, [values.dim(0) * chunkRows]);
}

/**
 * The weight of each position, f32 [T]; 1 where its label was not drawn.
 *
 * @param surprise -log q_now(label), f32 [T]
 * @param drawn log q_then(label), f32 [T]; above 0 where the label was not drawn
 */
export function importanceWeights(surprise: Tensor, drawn: Tensor, max: number): Tensor {
  return pointwise([surprise, drawn], (s, d) => {
    const wasDrawn = d!.greaterThan(0);
    return select(wasDrawn, 1, min(exp(select(wasDrawn, 0, s!.add(d!).neg())), max));
  });
}
