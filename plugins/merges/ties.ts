/**
 * TIES: small changes are trimmed, signs elected, and the mean of those that agree is added to the base.
 *
 * Yadav et al., "TIES-Merging", arXiv 2306.01708. With weights of parents, which the paper does not have, a sign is that of the weighted
 * sum and the mean is weighted; with equal ones it is the paper's.
 *
 * @module
 */
import { z } from "zod";
import {
  CONTRACT_VERSION,
  defineMerge,
  type Merge,
  type MergeParent,
  PluginError,
} from "../../src/registry/contract.ts";
import { differences } from "./differences.ts";
import { dropBelow, keepLargest, MagnitudeCounts } from "./magnitudes.ts";
import { lambda, normalizeElected, weight } from "./options.ts";
import { addElected } from "./sign_election.ts";
import { BLOCK } from "./weighted_sum.ts";

const options = z.strictObject({
  lambda,
  normalize: normalizeElected,
  trim: z.enum(["model", "tensor"]).default("model")
    .describe("Among what the largest changes are kept: of the whole model (the paper's) or of each tensor"),
});
const parentOptions = z.strictObject({
  weight,
  density: z.number().min(0).max(1).default(0.2).describe("Share of the changes that is kept, the largest"),
});
type ParentOptions = z.output<typeof parentOptions>;

/** Magnitudes of what one parent changed in all tensors. */
interface Counted {
  readonly counts: MagnitudeCounts;
  density?: number;
}

const ties: Merge = defineMerge({
  id: "ties",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Trims small changes, elects signs, and adds the mean of those that agree",
  source: "arXiv 2306.01708",
  options,
  parentOptions,
  base: "required",
  parents: { least: 1 },
  unit: ({ trim }) => (trim === "model" ? "entries" : "tensor"),
  like: { mergekit: { options: { trim: "tensor" }, parent: { density: 1 } } },
  identities: {
    symmetric: true,
    base: { options: { lambda: 0 } },
    first: { parents: [{ density: 1 }, { weight: 0 }] },
  },
  survey: {
    passes: ({ trim }) => (trim === "model" ? 2 : 0),
    begin: (parents): Counted[] => Array.from({ length: parents }, () => ({ counts: new MagnitudeCounts() })),
    see(memory, { name, base, parents }, pass) {
      for (const [i, parent] of parents.entries()) {
        const own = (memory as Counted[])[i]!;
        own.density ??= parent.options.density;
        if (own.density !== parent.options.density) throw differentDensities(name, own.density, parent);
        for (const changes of changesInBlocks(base!, parent.values)) {
          if (pass === 0) own.counts.countHigh(changes);
          else own.counts.countLow(changes, kept(own.density, own.counts.total));
        }
      }
    },
  },
  merge({ base, parents, options: { lambda, normalize }, survey }) {
    const changes = differences(base!, parents);
    for (const [i, change] of changes.entries()) {
      if (survey) {
        const { counts, density } = (survey as Counted[])[i]!;
        dropBelow(change, counts.cut(kept(density!, counts.total)).pattern);
      } else keepLargest(change, kept(parents[i]!.options.density, change.length));
    }
    return addElected(base!, changes, { weights: parents.map((p) => p.options.weight), normalize, lambda });
  },
});

function kept(density: number, count: number): number {
  return Math.floor(density * count);
}

function* changesInBlocks(base: Float32Array, values: Float32Array): Generator<Float32Array> {
  const block = new Float32Array(BLOCK);
  for (let at = 0; at < values.length; at += BLOCK) {
    const count = Math.min(BLOCK, values.length - at);
    for (let j = 0; j < count; j++) block[j] = values[at + j]! - base[at + j]!;
    yield block.subarray(0, count);
  }
}

function differentDensities(
  name: string,
  before: number,
  { options }: MergeParent<ParentOptions>,
): PluginError {
  return new PluginError("ties", `the density of ${name} is ${options.density}, that of others ${before}`, {
    hint: "Trimmed over the whole model a parent has one density; use trim: tensor where it has several.",
  });
}

export default ties;
