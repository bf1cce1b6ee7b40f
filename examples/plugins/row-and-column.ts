// An adapter: y = W x + s (u . x) v with one vector u of the inputs and one v of the outputs, whatever the recipe's rank.
//
//   limbeck plugin check examples/plugins/row-and-column.ts

import { CONTRACT_VERSION, defineAdapter, tensor } from "@limbeck/limbeck/plugin";
import { z } from "zod";

export default defineAdapter({
  id: "example/row-and-column",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "one trained row and one trained column beside each linear layer",
  source: "rank-1 LoRA, arXiv 2106.09685, with a scale of its own",
  options: z.strictObject({
    scale: z.number().positive().default(2).describe("Factor of the update"),
  }),
  settings: ["dropout"],
  suffixes: ["row_and_column_u", "row_and_column_v"],
  parameters: ({ inFeatures, outFeatures }) => [
    {
      name: "u",
      suffix: "row_and_column_u",
      shape: [1, inFeatures],
      initialisation: { kind: "uniform", bound: 1 / Math.sqrt(inFeatures) },
    },
    {
      name: "v",
      suffix: "row_and_column_v",
      shape: [outFeatures, 1],
      initialisation: { kind: "constant", value: 0 },
    },
  ],
  forward({ x, base, parameter, dropout, options: { scale } }) {
    const inner = tensor.linear(dropout(x), parameter("u"));
    return tensor.add(base(), tensor.scale(tensor.linear(inner, parameter("v")), scale));
  },
  merge(weight, { parameter, layer: { inFeatures }, options: { scale } }) {
    const [u, v] = [parameter("u"), parameter("v")];
    return weight.map((w, i) => w + scale * v[Math.floor(i / inFeatures)]! * u[i % inFeatures]!);
  },
  plainLora: ({ parameter, options: { scale } }) => ({
    rank: 1,
    scale,
    a: parameter("u"),
    b: parameter("v"),
  }),
});
