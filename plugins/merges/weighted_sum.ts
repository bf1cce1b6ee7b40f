/**
 * Sums of tensors, which most merges end with.
 *
 * @module
 */
import { PluginError } from "../../src/registry/contract.ts";

/** Entries whose sums are kept in f64 at once: few enough for the cache. */
export const BLOCK = 4096;

/**
 * sum_i w_i W_i, each entry summed in f64 and rounded once. It is written into the first of the tensors.
 *
 * The base of a merge of differences is a tensor like the others: W_0 + sum_i w_i (W_i - W_0) = (1 - sum_i w_i) W_0 + sum_i w_i W_i.
 */
export function weightedSum(tensors: readonly Float32Array[], weights: readonly number[]): Float32Array {
  const merged = tensors[0]!;
  const sums = new Float64Array(Math.min(BLOCK, merged.length));
  for (let at = 0; at < merged.length; at += BLOCK) {
    const count = Math.min(BLOCK, merged.length - at);
    begin(sums, merged, weights[0]!, at, count);
    for (let k = 1; k < tensors.length; k++) add(sums, tensors[k]!, weights[k]!, at, count);
    for (let j = 0; j < count; j++) merged[at + j] = sums[j]!;
  }
  return merged;
}

// Functions of their own, so that each loop is compiled once for all merges.

function begin(sums: Float64Array, values: Float32Array, weight: number, at: number, count: number): void {
  for (let j = 0; j < count; j++) sums[j] = weight * values[at + j]!;
}

function add(sums: Float64Array, values: Float32Array, weight: number, at: number, count: number): void {
  for (let j = 0; j < count; j++) sums[j]! += weight * values[at + j]!;
}

/**
 * Weights divided by their sum.
 *
 * @throws {PluginError} where the sum is 0
 */
export function normalized(weights: readonly number[], id: string, tensor: string): number[] {
  const sum = weights.reduce((total, weight) => total + weight, 0);
  if (Math.abs(sum) >= 1e-8) return weights.map((weight) => weight / sum);
  throw new PluginError(id, `the weights ${weights.join(", ")} of ${tensor} add up to 0`, {
    hint: "Give weights that do not cancel, or normalize: false.",
  });
}

/** Factors of the changes that are added to a base: lambda w_i, divided by the sum of the weights where that is wanted. */
export function scaled(
  weights: readonly number[],
  { lambda, normalize }: { lambda: number; normalize: boolean },
  id: string,
  tensor: string,
): number[] {
  return (normalize ? normalized(weights, id, tensor) : weights).map((weight) => lambda * weight);
}
