/**
 * The second half of TIES: parents elect the sign of each entry, and only those that agree with it are added.
 *
 * @module
 */
import { BLOCK } from "./weighted_sum.ts";

/** How agreeing changes become one. */
export interface Election {
  /** Factor of each parent's change. */
  readonly weights: readonly number[];
  /** What each parent's change counts in the election; its weight when absent. */
  readonly votes?: readonly number[];
  /** Divide by the sum of the weights that agree: the mean of those that do. */
  readonly normalize: boolean;
  /** Factor of what is added to the base. */
  readonly lambda: number;
}

/**
 * W_0 + lambda sum_{i in A} w_i D_i / sum_{i in A} w_i, where A are the parents whose change has the elected sign: that of the sum of all
 * votes, + where it is 0. A change of 0 agrees with nobody.
 *
 * Yadav et al., TIES-Merging, arXiv 2306.01708, its steps "elect" and "disjoint merge". Written into the first of the differences.
 */
export function addElected(
  base: Float32Array,
  changes: readonly Float32Array[],
  { weights, votes = weights, normalize, lambda }: Election,
): Float32Array {
  const merged = changes[0]!;
  const [elected, sums, totals] = [0, 0, 0].map(() => new Float64Array(BLOCK));
  for (let at = 0; at < merged.length; at += BLOCK) {
    const count = Math.min(BLOCK, merged.length - at);
    for (const part of [elected!, sums!, totals!]) part.fill(0);
    for (let k = 0; k < changes.length; k++) vote(elected!, changes[k]!, votes[k]!, at, count);
    for (let k = 0; k < changes.length; k++) {
      addAgreeing(sums!, totals!, elected!, changes[k]!, votes[k]! < 0, weights[k]!, at, count);
    }
    for (let j = 0; j < count; j++) {
      const total = totals![j]!;
      const change = normalize && total !== 0 ? sums![j]! / total : sums![j]!;
      merged[at + j] = base[at + j]! + lambda * change;
    }
  }
  return merged;
}

function vote(elected: Float64Array, change: Float32Array, votes: number, at: number, count: number): void {
  for (let j = 0; j < count; j++) elected[j]! += votes * change[at + j]!;
}

function addAgreeing(
  sums: Float64Array,
  totals: Float64Array,
  elected: Float64Array,
  change: Float32Array,
  turned: boolean,
  weight: number,
  at: number,
  count: number,
): void {
  for (let j = 0; j < count; j++) {
    const x = change[at + j]!;
    if (x === 0 || ((x > 0) !== turned) !== (elected[j]! >= 0)) continue;
    sums[j]! += weight * x;
    totals[j]! += weight;
  }
}
