/**
 * DARE with the sign election of TIES: changes are dropped at random instead of trimmed by size.
 *
 * Yu et al., "Language models are super Mario", arXiv 2311.03099, section on merging; Yadav et al., TIES-Merging, arXiv 2306.01708, for
 * electing and averaging.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineMerge, type Merge } from "../../src/registry/contract.ts";
import { dareOptions, dareParent, dareUnit, thinned } from "./dare.ts";
import { lambda, normalizeElected } from "./options.ts";
import { addElected } from "./sign_election.ts";

const dareTies: Merge = defineMerge({
  id: "dare-ties",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Drops changes at random, elects signs, and adds the mean of those that agree",
  source: "arXiv 2311.03099, arXiv 2306.01708",
  options: z.strictObject({ lambda, normalize: normalizeElected, ...dareOptions }),
  parentOptions: dareParent,
  base: "required",
  parents: { least: 1 },
  unit: dareUnit,
  like: { mergekit: { options: { rescaling: "l1", normalize: false }, parent: { density: 1 } } },
  identities: { base: { options: { lambda: 0 } }, first: { parents: [{ density: 1 }, { weight: 0 }] } },
  merge({ base, parents, options, random }) {
    const changes = thinned(base!, parents, random, options);
    return addElected(base!, changes, { ...options, weights: parents.map((p) => p.options.weight) });
  },
});

export default dareTies;
