/**
 * DELLA: small changes are dropped more often than large ones, signs elected, and the mean of those that agree is added to the base.
 *
 * Deep et al., "DELLA-Merging", arXiv 2406.11617.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineMerge, type Merge } from "../../src/registry/contract.ts";
import { dellaOptions, dellaParent, thinnedByRank } from "./della_drop.ts";
import { lambda, normalizeElected } from "./options.ts";
import { addElected } from "./sign_election.ts";

const della: Merge = defineMerge({
  id: "della",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description:
    "Drops small changes more often than large ones, elects signs, and adds the mean of those that agree",
  source: "arXiv 2406.11617",
  options: z.strictObject({ lambda, normalize: normalizeElected, ...dellaOptions }),
  parentOptions: dellaParent,
  base: "required",
  parents: { least: 1 },
  unit: "tensor",
  like: { mergekit: { options: { rescaling: "l1" }, parent: { density: 1 } } },
  identities: { base: { options: { lambda: 0 } }, first: { parents: [{ density: 1 }, { weight: 0 }] } },
  merge({ shape, base, parents, options, random }) {
    const changes = thinnedByRank(shape, base!, parents, random, options);
    return addElected(base!, changes, { ...options, weights: parents.map((p) => p.options.weight) });
  },
});

export default della;
