/**
 * Spherical interpolation of two models by their weights, of whole tensors, rows or columns, or of what the models changed.
 *
 * mergekit's own method (no paper): t = w_2 / (w_1 + w_2); slerp without a threshold, so that only exactly collinear tensors are mixed
 * linearly; with a base on W_i - W_0, to which W_0 is added.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineMerge, type Merge } from "../../src/registry/contract.ts";
import { differences } from "./differences.ts";
import { normalized, weightedSum } from "./weighted_sum.ts";
import { dot, rowLength, slerpFactors } from "./vectors.ts";

const nuslerp: Merge = defineMerge({
  id: "nuslerp",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Slerp by weights: of whole tensors, rows or columns, or of changes to a base",
  source: "mergekit",
  options: z.strictObject({
    flatten: z.boolean().default(true).describe("Take a tensor as one vector, not as one for each row"),
    columns: z.boolean().default(false).describe("Where it is not flattened: columns, not rows"),
  }),
  parentOptions: z.strictObject({ weight: z.number().default(1).describe("Share of the parent") }),
  base: "optional",
  parents: { least: 2, most: 2 },
  unit: "tensor",
  // mergekit's nuslerp_row_wise takes columns, contrary to its documentation.
  like: { mergekit: { names: { nuslerp_flatten: "flatten", nuslerp_row_wise: "columns" } } },
  identities: { symmetric: true, first: { parents: [{}, { weight: 0 }] } },
  merge({ name, shape, base, parents, options }) {
    const [a, b] = base ? differences(base, parents) : parents.map(({ values }) => values);
    const [, t] = normalized(parents.map((p) => p.options.weight), "nuslerp", name);
    for (const { from, count, stride } of vectorsOf(shape, a!.length, options)) {
      const along = (x: Float32Array, y: Float32Array) => dot(x, y, from, count, stride);
      const [first, second] = slerpFactors(
        { aa: along(a!, a!), ab: along(a!, b!), bb: along(b!, b!) },
        t!,
        1,
      );
      for (let k = 0, i = from; k < count; k++, i += stride) a![i] = first * a![i]! + second * b![i]!;
    }
    return base ? weightedSum([a!, base], [1, 1]) : a!;
  },
});

/** Where the vectors of a tensor lie that are each interpolated by themselves. */
function* vectorsOf(
  shape: readonly number[],
  size: number,
  { flatten, columns }: { flatten: boolean; columns: boolean },
): Generator<{ from: number; count: number; stride: number }> {
  const width = rowLength(shape);
  if (flatten || shape.length < 2) yield { from: 0, count: size, stride: 1 };
  else if (columns) {
    for (let i = 0; i < width; i++) yield { from: i, count: size / width, stride: width };
  } else {
    for (let from = 0; from < size; from += width) yield { from, count: width, stride: 1 };
  }
}

export default nuslerp;
