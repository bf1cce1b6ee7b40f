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
import { addToBase, differences } from "./differences.ts";
import { lambda } from "./options.ts";
import { mergeSingular } from "./singular_tasks.ts";

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
  merge({ shape, base, parents, options: { lambda }, linalg }) {
    const changes = differences(base!, parents);
    const [rows, columns] = shape;
    const rank = shape.length === 2 ? Math.floor(Math.min(rows!, columns!) / changes.length) : 0;
    if (rank === 0) return addToBase(base!, changes, changes.map(() => lambda / changes.length));
    const tasks = changes.map((change) => ({ change, rank, weight: 1 }));
    return addToBase(base!, [mergeSingular(tasks, rows!, columns!, linalg)], [lambda]);
  },
});

export default tsvM;
