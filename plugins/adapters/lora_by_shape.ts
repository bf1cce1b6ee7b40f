/**
 * LoRA by shape: y = W x + s B_k A_k x with k the shape of the network, of all those that a run trains at once. Nothing of the adapter is
 * shared, so what one shape learns takes nothing from another; each is one LoRA.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineAdapter } from "../../src/registry/contract.ts";
import { add, linear, matmul, reshape, scale } from "../../src/registry/tensor_ops.ts";
import { addLowRank, loraScale } from "./lora.ts";

const options = z.strictObject({});

export default defineAdapter({
  id: "lora-by-shape",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "a LoRA of its own for each shape of the student",
  source: "LoRA: Hu et al., arXiv 2106.09685",
  options,
  settings: ["alpha", "dropout", "rslora", "loraPlusRatio"],
  suffixes: ["lora_by_shape_A.weight", "lora_by_shape_B.weight", "lora_by_shape_chosen"],
  parameters: ({ rank, inFeatures, outFeatures }, _settings, _options, { shapes = 1 }) => [
    // The factors of a shape are a row, which a product with a row of zeros and a one takes out.
    {
      name: "A",
      suffix: "lora_by_shape_A.weight",
      shape: [shapes, rank * inFeatures],
      initialisation: { kind: "uniform", bound: 1 / Math.sqrt(inFeatures) },
      group: "A",
    },
    {
      name: "B",
      suffix: "lora_by_shape_B.weight",
      shape: [shapes, outFeatures * rank],
      initialisation: { kind: "constant", value: 0 },
      group: "B",
    },
  ],
  shared: (_layers, _settings, _options, { shapes = 1, shape = 0 }) => [
    {
      name: "chosen",
      suffix: "lora_by_shape_chosen",
      shape: [1, shapes],
      initialisation: {
        kind: "given",
        values: () => Float32Array.from({ length: shapes }, (_, i) => Number(i === shape)),
      },
      trainable: false,
    },
  ],
  groups: ({ loraPlusRatio }) => ({ B: { learningRateRatio: loraPlusRatio } }),
  forward: ({ x, base, parameter, shared, dropout, layer, settings }) => {
    const { rank, inFeatures, outFeatures } = layer;
    const a = reshape(matmul("NN", shared("chosen"), parameter("A")), [rank, inFeatures]);
    const b = reshape(matmul("NN", shared("chosen"), parameter("B")), [outFeatures, rank]);
    return add(base(), linear(scale(linear(dropout(x), a), loraScale(layer, settings)), b));
  },
  merge: (weight, { parameter, shared, layer, settings }) =>
    addLowRank(
      weight,
      chosen("A", parameter, shared),
      chosen("B", parameter, shared),
      loraScale(layer, settings),
      layer,
    ),
  plainLora: ({ parameter, shared, layer, settings }) => ({
    rank: layer.rank,
    scale: loraScale(layer, settings),
    a: chosen("A", parameter, shared),
    b: chosen("B", parameter, shared),
  }),
});

type Values = (name: string) => Float32Array;

/** The factor of the shape. */
function chosen(factor: "A" | "B", parameter: Values, shared: Values): Float32Array {
  const [rows, at] = [parameter(factor), shared("chosen").indexOf(1)];
  const count = rows.length / shared("chosen").length;
  return rows.slice(at * count, (at + 1) * count);
}
