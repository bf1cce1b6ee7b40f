/**
 * Breadcrumbs with the sign election of TIES.
 *
 * mergekit's combination of Davari and Belilovsky, "Model Breadcrumbs", arXiv 2312.06795, and of Yadav et al., arXiv 2306.01708.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineMerge, type Merge } from "../../src/registry/contract.ts";
import { breadcrumbs, breadcrumbsOptions, breadcrumbsParent } from "./breadcrumb_mask.ts";
import { lambda, normalizeOff } from "./options.ts";
import { addElected } from "./sign_election.ts";

const breadcrumbsTies: Merge = defineMerge({
  id: "breadcrumbs-ties",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Drops the largest and the smallest changes, elects signs, and adds those that agree",
  source: "arXiv 2312.06795, arXiv 2306.01708, mergekit",
  options: z.strictObject({ lambda, normalize: normalizeOff, ...breadcrumbsOptions }),
  parentOptions: breadcrumbsParent,
  base: "required",
  parents: { least: 1 },
  unit: "tensor",
  like: { mergekit: { parent: { density: 1 } } },
  identities: {
    symmetric: true,
    base: { options: { lambda: 0 } },
    first: { parents: [{ density: 1 }, { weight: 0 }] },
  },
  merge({ base, parents, options }) {
    const changes = breadcrumbs(base!, parents, options);
    return addElected(base!, changes, { ...options, weights: parents.map((p) => p.options.weight) });
  },
});

export default breadcrumbsTies;
