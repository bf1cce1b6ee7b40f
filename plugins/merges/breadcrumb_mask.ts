/**
 * What breadcrumbs is with either way of adding up: the largest changes are dropped as outliers, and the smallest as noise.
 *
 * Davari and Belilovsky, "Model Breadcrumbs", arXiv 2312.06795.
 *
 * @module
 */
import { z } from "zod";
import type { MergeParent } from "../../src/registry/contract.ts";
import { differences } from "./differences.ts";
import { dropLargest, keepLargest } from "./magnitudes.ts";
import { weight } from "./options.ts";

/** Options of both. */
export const breadcrumbsOptions = {
  faithful: z.boolean().default(false)
    .describe(
      "mergekit's slip: drop all changes of a tensor of which the share gamma is less than one entry",
    ),
};

/** Options of a parent. */
export const breadcrumbsParent = z.strictObject({
  weight,
  density: z.number().min(0).max(1).default(0.9).describe("Share of the changes of a tensor that is kept"),
  gamma: z.number().min(0).max(1).default(0.01).describe("Share that is dropped because it is the largest"),
});

/** Changes to the base, without the largest and the smallest. */
export function breadcrumbs(
  base: Float32Array,
  parents: readonly MergeParent<z.output<typeof breadcrumbsParent>>[],
  { faithful }: { faithful: boolean },
): Float32Array[] {
  const changes = differences(base, parents);
  for (const [i, change] of changes.entries()) {
    const { density, gamma } = parents[i]!.options;
    if (density >= 1) continue;
    const kept = Math.floor(density * change.length);
    const top = Math.floor(gamma * change.length);
    // Where density and gamma are more than all, fewer of the largest go.
    const bottom = Math.max(0, change.length - kept - top);
    dropLargest(change, change.length - bottom - kept);
    keepLargest(change, faithful && top === 0 ? 0 : kept);
  }
  return changes;
}
