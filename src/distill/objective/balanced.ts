/**
 * Losses that are given the size of others.
 *
 * @module
 */
import { max, min, stepScalar } from "../../tensor/expr/mod.ts";
import type { Tensor } from "../../tensor/graph.ts";
import { pointwise, sumRows } from "../../tensor/ops/pointwise.ts";
import { reshape } from "../../tensor/ops/views.ts";
import type { Balance } from "../recipe/recipe.ts";

/**
 * The seed of a loss L that shall have the size of another, L_0, times its weight w: `seed` times w L_0 / L, a constant in the
 * gradient (L_0 / L as AmoebaLLM, arXiv 2411.10606, scales the losses of sub-networks; weight and bound are ours). `own` is w L of each
 * position.
 */
export function balanced(
  own: Tensor,
  reference: Tensor,
  seed: Tensor,
  weight: string,
  { max: bound }: Balance,
): Tensor {
  const sum = (rows: Tensor) => sumRows(reshape(rows, [rows.dim(0), 1]));
  return pointwise([seed, sum(reference), sum(own)], (s, l0, l) => {
    const factor = stepScalar(weight).mul(l0!.abs()).div(max(l!.abs(), SMALLEST));
    return s!.mul(min(factor, bound));
  });
}

/** Keeps a loss that has vanished from being divided by. */
const SMALLEST = 1e-30;
