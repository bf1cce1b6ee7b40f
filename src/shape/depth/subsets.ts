/**
 * Subsets of a model's layers: those that are kept, those that are removed, and which of two comes first.
 *
 * @module
 */

/** A value of a subset, lower is better; infinite where the metric gives no number. */
export type SubsetMetric = (kept: readonly number[]) => Promise<number>;

/** A subset with its value. */
export interface EvaluatedSubset {
  /** Layers that stay, rising. */
  readonly kept: readonly number[];
  readonly value: number;
}

/** Layers 0 ... count - 1 that are not among some of them. */
export function without(count: number, layers: readonly number[]): number[] {
  const absent = new Set(layers);
  return Array.from({ length: count }, (_, layer) => layer).filter((layer) => !absent.has(layer));
}

/** Name of a subset: its layers with commas between. */
export function subsetKey(kept: readonly number[]): string {
  return kept.join(",");
}

/** Orders by value, and equal ones by the layers they lack, so that no order depends on chance. */
export function betterFirst(layers: number): (a: EvaluatedSubset, b: EvaluatedSubset) => number {
  return (a, b) => {
    if (a.value !== b.value) return a.value < b.value ? -1 : 1;
    const [mine, its] = [without(layers, a.kept), without(layers, b.kept)];
    const at = mine.findIndex((layer, i) => layer !== its[i]);
    return at < 0 ? mine.length - its.length : mine[at]! - (its[at] ?? -1);
  };
}

/** How many subsets of `size` there are of `count` things. */
export function combinationCount(count: number, size: number): number {
  let ways = 1;
  for (let i = 0; i < size; i++) ways = ways * (count - i) / (i + 1);
  return Math.round(ways);
}

/** Every subset of `size` of the numbers 0 ... count - 1, each rising, in lexical order. */
export function* combinations(count: number, size: number): Generator<number[]> {
  const chosen = Array.from({ length: size }, (_, i) => i);
  if (size > count) return;
  for (;;) {
    yield [...chosen];
    let i = size - 1;
    while (i >= 0 && chosen[i] === count - size + i) i--;
    if (i < 0) return;
    chosen[i]!++;
    for (let j = i + 1; j < size; j++) chosen[j] = chosen[j - 1]! + 1;
  }
}
