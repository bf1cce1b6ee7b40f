/**
 * What DELLA is with either way of adding up: options, and dropping small changes of a row more often than large ones.
 *
 * Deep et al., "DELLA-Merging", arXiv 2406.11617: the probability to keep a change rises with the rank of its size in its row, from
 * density - epsilon to density + epsilon; what stays is divided by its own probability.
 *
 * @module
 */
import { z } from "zod";
import type { MergeParent } from "../../src/registry/contract.ts";
import { differences } from "./differences.ts";
import { absoluteSum, rescale, type Rescaling, restoreAbsoluteSum } from "./drop.ts";
import { weight } from "./options.ts";
import { rowLength } from "./vectors.ts";

/** Options of both. */
export const dellaOptions = {
  rescale,
  rescaling: z.enum(["probability", "l1"]).default("probability")
    .describe(
      "probability: divide by that of the change (the paper's); l1: to the sum of absolute values before",
    ),
};

/** Options of a parent. */
export const dellaParent = z.strictObject({
  weight,
  density: z.number().min(0).max(1).default(0.5).describe("Mean probability with which a change is kept"),
  epsilon: z.number().min(0).default(0.15)
    .describe("How far the probability of the smallest and the largest of a row is from the mean"),
}).refine(({ density, epsilon }) => density >= 1 || (density - epsilon > 0 && density + epsilon < 1), {
  error: "density - epsilon must be above 0 and density + epsilon below 1, unless density is 1",
  path: ["epsilon"],
});

/** Changes to the base, thinned out. */
export function thinnedByRank(
  shape: readonly number[],
  base: Float32Array,
  parents: readonly MergeParent<z.output<typeof dellaParent>>[],
  random: (parent: number) => Float32Array,
  { rescale, rescaling }: { rescale: boolean; rescaling: "probability" | "l1" },
): Float32Array[] {
  const changes = differences(base, parents);
  const keeps = !rescale ? "none" : rescaling === "l1" ? "l1" : "expectation";
  for (const [i, change] of changes.entries()) {
    const { density, epsilon } = parents[i]!.options;
    if (density < 1) dropByRank(change, random(i), rowLength(shape), density, epsilon, keeps);
  }
  return changes;
}

function dropByRank(
  values: Float32Array,
  uniform: Float32Array,
  width: number,
  density: number,
  epsilon: number,
  rescaling: Rescaling,
): void {
  const before = rescaling === "l1" ? absoluteSum(values) : 0;
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  // Sorted as whole numbers of 64 bits, which is much faster than by a function: the size above, the place below.
  const keys = new BigUint64Array(width);
  const halves = new Uint32Array(keys.buffer);
  for (let from = 0; from < values.length; from += width) {
    for (let j = 0; j < width; j++) {
      halves[2 * j] = j;
      halves[2 * j + 1] = bits[from + j]! & 0x7fffffff;
    }
    keys.sort();
    for (let rank = 0; rank < width; rank++) {
      const i = from + halves[2 * rank]!;
      const probability = width > 1 ? density - epsilon + 2 * epsilon * rank / (width - 1) : density;
      if (!(uniform[i]! < probability)) values[i] = 0;
      else if (rescaling === "expectation") values[i]! /= probability;
    }
  }
  if (rescaling === "l1") restoreAbsoluteSum(values, before);
}
