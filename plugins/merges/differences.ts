/**
 * What each parent changed.
 *
 * @module
 */
import type { MergeParent } from "../../src/registry/contract.ts";
import { weightedSum } from "./weighted_sum.ts";

/** W_i - W_0 of each parent, in place. */
export function differences(base: Float32Array, parents: readonly MergeParent<unknown>[]): Float32Array[] {
  return parents.map(({ values }) => {
    for (let i = 0; i < values.length; i++) values[i]! -= base[i]!;
    return values;
  });
}

/** W_0 + sum_i w_i D_i, written into the first of the differences. */
export function addToBase(
  base: Float32Array,
  changes: readonly Float32Array[],
  weights: readonly number[],
): Float32Array {
  return weightedSum([...changes, base], [...weights, 1]);
}
