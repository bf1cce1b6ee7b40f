/**
 * One model's tensor as it is, times a scale: for stacking layers of several models, slice by slice.
 *
 * mergekit's method (no paper): W = scale W_1.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineMerge, type Merge, noOptions } from "../../src/registry/contract.ts";

const passthrough: Merge = defineMerge({
  id: "passthrough",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "One model's tensors as they are, or scaled: for stacking layers",
  source: "mergekit",
  options: noOptions,
  parentOptions: z.strictObject({ scale: z.number().default(1).describe("Factor of the tensor") }),
  base: "none",
  parents: { least: 1, most: 1 },
  unit: "entries",
  identities: { first: { parents: [{}] } },
  merge({ parents }) {
    const { values, options: { scale } } = parents[0]!;
    if (scale !== 1) { for (let i = 0; i < values.length; i++) values[i]! *= scale; }
    return values;
  },
});

export default passthrough;
