/**
 * The Pareto frontier of things that cost something and lose something: those that no other beats.
 *
 * @module
 */

/** What a thing costs and what it loses; lower is better for both. What is not finite is on no frontier. */
export type Tradeoff = readonly [cost: number, loss: number];

/**
 * The items that no other one dominates, by rising cost. One item dominates another if it neither costs nor loses more, and one of the
 * two less; so equal items stand beside each other.
 */
export function frontier<T>(items: readonly T[], of: (item: T) => Tradeoff): T[] {
  const found: T[] = [];
  let [lowest, at] = [Infinity, NaN];
  for (const { item, cost, loss } of sorted(items, of)) {
    if (loss > lowest || (loss === lowest && cost > at)) continue;
    found.push(item);
    [lowest, at] = [loss, cost];
  }
  return found;
}

/**
 * The items that are on the frontier or lose hardly more than it at their cost, by rising cost.
 *
 * @param tolerance Part of the frontier's loss that they may lose more
 */
export function nearFrontier<T>(items: readonly T[], of: (item: T) => Tradeoff, tolerance: number): T[] {
  let lowest = Infinity;
  return sorted(items, of).flatMap(({ item, loss }) => {
    lowest = Math.min(lowest, loss);
    return loss <= lowest + tolerance * Math.abs(lowest) ? [item] : [];
  });
}

/** By rising cost, then loss; equal ones as they came. */
function sorted<T>(items: readonly T[], of: (item: T) => Tradeoff) {
  return items.map((item) => {
    const [cost, loss] = of(item);
    return { item, cost, loss };
  }).filter(({ cost, loss }) => Number.isFinite(cost) && Number.isFinite(loss))
    .sort((a, b) => a.cost - b.cost || a.loss - b.loss);
}
