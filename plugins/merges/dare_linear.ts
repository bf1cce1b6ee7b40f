/**
 * DARE with task arithmetic: W = W_0 + lambda sum_i w_i drop(W_i - W_0).
 *
 * Yu et al., "Language models are super Mario", arXiv 2311.03099.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineMerge, type Merge } from "../../src/registry/contract.ts";
import { dareOptions, dareParent, dareUnit, thinned } from "./dare.ts";
import { addToBase } from "./differences.ts";
import { lambda, normalizeOff } from "./options.ts";
import { scaled } from "./weighted_sum.ts";

const dareLinear: Merge = defineMerge({
  id: "dare-linear",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Drops changes at random, makes up for them, and adds a weighted sum",
  source: "arXiv 2311.03099",
  options: z.strictObject({ lambda, normalize: normalizeOff, ...dareOptions }),
  parentOptions: dareParent,
  base: "required",
  parents: { least: 1 },
  unit: dareUnit,
  like: { mergekit: { options: { rescaling: "l1" }, parent: { density: 1 } } },
  identities: { base: { options: { lambda: 0 } }, first: { parents: [{ density: 1 }, { weight: 0 }] } },
  merge({ name, base, parents, options, random }) {
    const changes = thinned(base!, parents, random, options);
    const weights = scaled(parents.map((p) => p.options.weight), options, "dare-linear", name);
    return addToBase(base!, changes, weights);
  },
});

export default dareLinear;
