/**
 * DELLA's dropping with task arithmetic: W = W_0 + lambda sum_i w_i drop(W_i - W_0).
 *
 * Deep et al., "DELLA-Merging", arXiv 2406.11617, without its election of signs.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineMerge, type Merge } from "../../src/registry/contract.ts";
import { dellaOptions, dellaParent, thinnedByRank } from "./della_drop.ts";
import { addToBase } from "./differences.ts";
import { lambda, normalizeOff } from "./options.ts";
import { scaled } from "./weighted_sum.ts";

const dellaLinear: Merge = defineMerge({
  id: "della-linear",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Drops small changes more often than large ones, makes up for them, and adds a weighted sum",
  source: "arXiv 2406.11617",
  options: z.strictObject({ lambda, normalize: normalizeOff, ...dellaOptions }),
  parentOptions: dellaParent,
  base: "required",
  parents: { least: 1 },
  unit: "tensor",
  like: { mergekit: { options: { rescaling: "l1" }, parent: { density: 1 } } },
  identities: { base: { options: { lambda: 0 } }, first: { parents: [{ density: 1 }, { weight: 0 }] } },
  merge({ name, shape, base, parents, options, random }) {
    const changes = thinnedByRank(shape, base!, parents, random, options);
    const weights = scaled(parents.map((p) => p.options.weight), options, "della-linear", name);
    return addToBase(base!, changes, weights);
  },
});

export default dellaLinear;
