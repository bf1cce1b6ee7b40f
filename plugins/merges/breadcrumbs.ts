/**
 * Task arithmetic without each parent's largest and smallest changes.
 *
 * Davari and Belilovsky, "Model Breadcrumbs", arXiv 2312.06795: W = W_0 + lambda sum_i w_i mask(W_i - W_0).
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineMerge, type Merge } from "../../src/registry/contract.ts";
import { breadcrumbs as masked, breadcrumbsOptions, breadcrumbsParent } from "./breadcrumb_mask.ts";
import { addToBase } from "./differences.ts";
import { lambda, normalizeOff } from "./options.ts";
import { scaled } from "./weighted_sum.ts";

const breadcrumbs: Merge = defineMerge({
  id: "breadcrumbs",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Drops the largest and the smallest changes, and adds a weighted sum",
  source: "arXiv 2312.06795",
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
  merge({ name, base, parents, options }) {
    const weights = scaled(parents.map((p) => p.options.weight), options, "breadcrumbs", name);
    return addToBase(base!, masked(base!, parents, options), weights);
  },
});

export default breadcrumbs;
