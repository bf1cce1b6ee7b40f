/**
 * Searches beside the dynamic programme: every subset of a size, and a beam of the best ones, layer by layer.
 *
 * @module
 */
import type { DepthLimits } from "./dynamic_program.ts";
import {
  betterFirst,
  combinationCount,
  combinations,
  type EvaluatedSubset,
  subsetKey,
  type SubsetMetric,
  without,
} from "./subsets.ts";

/** Subsets that {@linkcode exhaustive} evaluates. */
export function exhaustiveEvaluations({ layers, keepLast, mostRemoved }: DepthLimits): number {
  return combinationCount(layers - keepLast, mostRemoved);
}

/** The best of all subsets without `mostRemoved` layers. */
export async function exhaustive(
  { layers, keepLast, mostRemoved }: DepthLimits,
  metric: SubsetMetric,
): Promise<EvaluatedSubset> {
  const first = betterFirst(layers);
  let best: EvaluatedSubset | undefined;
  for (const removed of combinations(layers - keepLast, mostRemoved)) {
    const kept = without(layers, removed);
    const found = { kept, value: await metric(kept) };
    if (!best || first(found, best) < 0) best = found;
  }
  return best!;
}

/** Most subsets that {@linkcode beam} evaluates. */
export function beamEvaluations({ layers, keepLast, mostRemoved }: DepthLimits, width: number): number {
  const removable = layers - keepLast;
  let sum = 0;
  for (let m = 1; m <= mostRemoved; m++) {
    const begun = Math.min(width, combinationCount(removable, m - 1));
    sum += Math.min(begun * (removable - m + 1), combinationCount(removable, m));
  }
  return sum;
}

/** Removes one layer after another from each of the `width` best subsets so far. Width 1 is greedy removal. */
export async function beam(
  { layers, keepLast, mostRemoved }: DepthLimits,
  width: number,
  metric: SubsetMetric,
): Promise<EvaluatedSubset> {
  const removable = layers - keepLast;
  let best: EvaluatedSubset[] = [{ kept: without(layers, []), value: -Infinity }];
  for (let m = 1; m <= mostRemoved; m++) {
    const found = new Map<string, EvaluatedSubset>();
    for (const { kept } of best) {
      for (const layer of kept.filter((l) => l < removable)) {
        const fewer = kept.filter((l) => l !== layer);
        const key = subsetKey(fewer);
        if (!found.has(key)) found.set(key, { kept: fewer, value: await metric(fewer) });
      }
    }
    best = [...found.values()].sort(betterFirst(layers)).slice(0, width);
  }
  return best[0]!;
}
