/**
 * The second half of TIES: parents elect the sign of each entry, and only those that agree with it are added.
 *
 * @module
 */
import { BLOCK } from "./weighted_sum.ts";

const MAGNITUDE = 0x7fffffff;

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
  const bits = changes.map(({ buffer, byteOffset, length }) => new Int32Array(buffer, byteOffset, length));
  for (let at = 0; at < merged.length; at += BLOCK) {
    const count = Math.min(BLOCK, merged.length - at);
    for (const part of [elected!, sums!, totals!]) part.fill(0);
    for (let k = 0; k < changes.length; k++) vote(elected!, changes[k]!, votes[k]!, at, count);
    for (let k = 0; k < changes.length; k++) {
      const turned = votes[k]! < 0 ? 1 : 0;
      addAgreeing(sums!, totals!, elected!, changes[k]!, bits[k]!, turned, weights[k]!, at, count);
    }
    for (let j = 0; j < count; j++) {
      const total = totals![j]!;
      // Where nobody agrees, or the weights cancel, the sum stays as it is.
      const divisor = normalize ? total + Number(total === 0) : 1;
      merged[at + j] = base[at + j]! + lambda * (sums![j]! / divisor);
    }
  }
  return merged;
}

function vote(elected: Float64Array, change: Float32Array, votes: number, at: number, count: number): void {
  for (let j = 0; j < count; j++) elected[j]! += votes * change[at + j]!;
}

/**
 * Signs are as good as random, so a branch on one would be mispredicted half of the time; arithmetic on the bits has none.
 *
 * @param elected Sums of votes from +0 on, which are never -0
 * @param bits Those of `change`
 * @param turned 1 where a vote counts against its own sign, else 0
 */
function addAgreeing(
  sums: Float64Array,
  totals: Float64Array,
  elected: Float64Array,
  change: Float32Array,
  bits: Int32Array,
  turned: number,
  weight: number,
  at: number,
  count: number,
): void {
  // The sign of an f64 is in its second word.
  const signs = new Int32Array(elected.buffer);
  for (let j = 0; j < count; j++) {
    const own = bits[at + j]!;
    const changed = ((own & MAGNITUDE) + MAGNITUDE) >>> 31;
    const agrees = changed & ~((own >>> 31) ^ (signs[2 * j + 1]! >>> 31) ^ turned);
    const share = weight * agrees;
    sums[j]! += share * change[at + j]!;
    totals[j]! += share;
  }
}
