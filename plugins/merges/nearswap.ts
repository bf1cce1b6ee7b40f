/**
 * The base, drawn to another model where both are near one another.
 *
 * mergekit's method, after a script of alchemonaut (no paper): W = (1 - w) a + w b, w = clamp(t / max(|b - a|, 1e-6), 0, 1).
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineMerge, type Merge } from "../../src/registry/contract.ts";

const nearswap: Merge = defineMerge({
  id: "nearswap",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "The base, drawn to another model where the two are near one another",
  source: "mergekit",
  options: z.strictObject({
    t: z.number().min(0).default(0.001).describe("Difference up to which an entry is the other model's"),
  }),
  parentOptions: z.strictObject({}),
  base: "required",
  parents: { least: 1, most: 1 },
  unit: "entries",
  identities: { base: { options: { t: 0 } }, first: { options: { t: 1e6 }, parents: [{}] } },
  merge({ base, parents, options: { t } }) {
    const { values } = parents[0]!;
    for (let i = 0; i < values.length; i++) {
      const a = base![i]!;
      const change = values[i]! - a;
      values[i] = a + Math.min(1, t / Math.max(Math.abs(change), 1e-6)) * change;
    }
    return values;
  },
});

export default nearswap;
