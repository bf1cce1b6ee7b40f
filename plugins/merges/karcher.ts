/**
 * The Karcher mean of models' directions on the sphere, with the mean of their lengths.
 *
 * Karcher, "Riemannian center of mass and mollifier smoothing", 1977: u is the point of which the logarithms of all directions
 * u_i = W_i / |W_i| add up to 0, found by u <- exp_u(mean_i log_u(u_i)) from the normalised mean; W = mean_i |W_i| u.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineMerge, type Merge } from "../../src/registry/contract.ts";
import { products } from "./vectors.ts";
import { weightedSum } from "./weighted_sum.ts";

const karcher: Merge = defineMerge({
  id: "karcher",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Karcher mean of directions on the sphere, with the mean of the lengths",
  source: "Karcher 1977; mergekit",
  options: z.strictObject({
    maxIter: z.number().int().min(0).default(10).describe("Most steps"),
    tol: z.number().min(0).default(1e-5).describe("Length of a step at which it ends, radians"),
  }),
  parentOptions: z.strictObject({}),
  base: "first",
  parents: { least: 2 },
  unit: "tensor",
  identities: { symmetric: true },
  merge({ parents, options: { maxIter, tol } }) {
    const vectors = parents.map(({ values }) => values);
    const inner = products(vectors);
    const lengths = inner.map((row, i) => Math.sqrt(row[i]!));
    // A tensor of zeros has no direction.
    const some = [...vectors.keys()].filter((i) => lengths[i]! > 0);
    if (some.length === 0) return vectors[0]!;
    const cosines = some.map((i) => some.map((j) => inner[i]![j]! / lengths[i]! / lengths[j]!));
    const direction = karcherMean(cosines, maxIter, tol);
    const length = some.reduce((sum, i) => sum + lengths[i]!, 0) / some.length;
    return weightedSum(
      some.map((i) => vectors[i]!),
      some.map((i, k) => length * direction[k]! / lengths[i]!),
    );
  },
});

/**
 * The mean as a combination of the unit vectors, of which only the cosines are needed: every step stays in their span.
 *
 * @returns a factor for each unit vector
 */
function karcherMean(cosines: readonly (readonly number[])[], steps: number, tolerance: number): number[] {
  const count = cosines.length;
  const along = (factors: readonly number[], i: number) =>
    factors.reduce((sum, factor, j) => sum + factor * cosines[i]![j]!, 0);
  const lengthOf = (factors: readonly number[]) =>
    Math.sqrt(Math.max(0, factors.reduce((sum, factor, i) => sum + factor * along(factors, i), 0)));
  const unit = (factors: readonly number[]) => {
    const length = lengthOf(factors);
    // Directions that cancel have no mean: the first of them is as good as any.
    return length > 1e-12 ? factors.map((x) => x / length) : factors.map((_, i) => (i === 0 ? 1 : 0));
  };
  let mean = unit(cosines.map(() => 1 / count));
  for (let step = 0; step < steps; step++) {
    const tangent = new Array<number>(count).fill(0);
    for (let i = 0; i < count; i++) {
      const cosine = Math.min(1, Math.max(-1, along(mean, i)));
      const angle = Math.acos(cosine);
      const sine = Math.sin(angle);
      if (angle < tolerance || sine < 1e-12) continue;
      const factor = angle / sine / count;
      tangent[i]! += factor;
      for (let j = 0; j < count; j++) tangent[j]! -= factor * cosine * mean[j]!;
    }
    const length = lengthOf(tangent);
    if (!(length >= tolerance)) break;
    mean = unit(mean.map((m, j) => Math.cos(length) * m + Math.sin(length) * tangent[j]! / length));
  }
  return mean;
}

export default karcher;
