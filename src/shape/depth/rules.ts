/**
 * Rules that choose layers without measuring any subset.
 *
 * @module
 */
import { without } from "./subsets.ts";

/** Layers by falling cosine of their input and output, the lower first among equal ones: what changes its input least goes first. */
export function cosineOrder(cosines: readonly number[]): number[] {
  return without(cosines.length, []).sort((a, b) => cosines[b]! - cosines[a]! || a - b);
}

/** Layers kept when the first ones of an order go, as long as they may. */
export function keepByOrder(order: readonly number[], kept: number, keepLast: number): number[] {
  const layers = order.length;
  const removable = order.filter((layer) => layer < layers - keepLast);
  return without(layers, removable.slice(0, layers - kept));
}

/** Layers 0, 2, 4 and so on. */
export function everyOther(layers: number): number[] {
  return without(layers, []).filter((layer) => layer % 2 === 0);
}

/** `kept` layers from the first to the last, i (L - 1) / (kept - 1) rounded half up; of one, the first. */
export function evenlySpaced(layers: number, kept: number): number[] {
  if (kept === 1) return [0];
  return Array.from(
    { length: kept },
    (_, i) => Math.floor((2 * i * (layers - 1) + (kept - 1)) / (2 * (kept - 1))),
  );
}
