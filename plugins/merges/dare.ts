/**
 * What DARE is with either way of adding up: options, and dropping.
 *
 * Yu et al., "Language models are super Mario", arXiv 2311.03099: each change is dropped with probability 1 - density, the others are
 * divided by density, which leaves the expectation as it is.
 *
 * @module
 */
import { z } from "zod";
import type { MergeParent } from "../../src/registry/contract.ts";
import { differences } from "./differences.ts";
import { dropAtRandom, rescale } from "./drop.ts";
import { weight } from "./options.ts";

/** Options of both. */
export const dareOptions = {
  rescale,
  rescaling: z.enum(["density", "l1"]).default("density")
    .describe("density: divide by it (the paper's); l1: to the sum of absolute values before (mergekit's)"),
};

/** Options of a parent. */
export const dareParent = z.strictObject({
  weight,
  density: z.number().min(0).max(1).default(0.5).describe("Probability with which a change is kept"),
});

interface DareOptions {
  readonly rescale: boolean;
  readonly rescaling: "density" | "l1";
}

/** Whether entries can be merged by themselves: not where a sum over the tensor is to stay the same. */
export function dareUnit({ rescale, rescaling }: DareOptions): "entries" | "tensor" {
  return rescale && rescaling === "l1" ? "tensor" : "entries";
}

/** Changes to the base, thinned out. */
export function thinned(
  base: Float32Array,
  parents: readonly MergeParent<z.output<typeof dareParent>>[],
  random: (parent: number) => Float32Array,
  { rescale, rescaling }: DareOptions,
): Float32Array[] {
  const changes = differences(base, parents);
  const keeps = !rescale ? "none" : rescaling === "l1" ? "l1" : "expectation";
  for (const [i, change] of changes.entries()) {
    const { density } = parents[i]!.options;
    if (density < 1) dropAtRandom(change, random(i), density, keeps);
  }
  return changes;
}
