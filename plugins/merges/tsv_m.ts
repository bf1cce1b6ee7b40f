/**
 * TSV-M: the leading singular vectors of all parents' changes, made orthogonal to one another so that tasks do not disturb each other.
 *
 * Gargiulo et al., "Task Singular Vectors", arXiv 2412.00081, and its code: of each matrix the floor(min(rows, columns) / T) largest
 * singular values of each of T parents are kept; W = W_0 + lambda D. Of tensors that are no matrices the mean change is added.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineMerge, type Merge, noOptions } from "../../src/registry/contract.ts";
import { lambda } from "./options.ts";
import { addSingular } from "./singular_tasks.ts";

const tsvM: Merge = defineMerge({
  id: "tsv-m",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Leading singular vectors of all parents' changes, made orthogonal to one another",
  source: "arXiv 2412.00081",
  options: z.strictObject({ lambda }),
  parentOptions: noOptions,
  base: "required",
  parents: { least: 1 },
  unit: "tensor",
  identities: { symmetric: true, base: { options: { lambda: 0 } }, first: { parents: [{}] } },
  merge: (input) =>
    addSingular(
      input,
      input.options.lambda,
      (changes, rank) => changes.map((change) => ({ change, rank, weight: 1 })),
    ),
});

export default tsvM;
