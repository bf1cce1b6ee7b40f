/**
 * The point between two models along the great circle of their directions.
 *
 * Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985, on each tensor flattened: with theta the angle between a and b,
 * W = sin((1 - t) theta) / sin(theta) a + sin(t theta) / sin(theta) b; nearly parallel tensors are mixed linearly.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineMerge, type Merge } from "../../src/registry/contract.ts";
import { dot, slerpFactors } from "./vectors.ts";
import { weightedSum } from "./weighted_sum.ts";

const slerp: Merge = defineMerge({
  id: "slerp",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "Between two models along the great circle of their directions",
  source: "Shoemake, SIGGRAPH 1985",
  options: z.strictObject({
    t: z.number().min(0).max(1).default(0.5).describe("Way from the first model (the base) to the second"),
    straight: z.number().min(0).max(1).default(0.9995)
      .describe("Tensors whose cosine is above it in size are mixed linearly"),
  }),
  parentOptions: z.strictObject({}),
  base: "first",
  parents: { least: 2, most: 2 },
  unit: "tensor",
  identities: { symmetric: true, first: { options: { t: 0 }, parents: [{}, {}] } },
  merge({ parents, options: { t, straight } }) {
    const [a, b] = parents.map(({ values }) => values);
    const lengths = { aa: dot(a!, a!), ab: dot(a!, b!), bb: dot(b!, b!) };
    return weightedSum([a!, b!], slerpFactors(lengths, t, straight));
  },
});

export default slerp;
