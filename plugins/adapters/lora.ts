/**
 * LoRA: y = W x + s B A x with A [r, in], B [out, r] (Hu et al., arXiv 2106.09685), with rsLoRA's scale (arXiv 2312.03732) and
 * LoRA+'s learning rates (arXiv 2402.12354) as settings.
 *
 * @module
 */
import { z } from "zod";
import {
  type AdaptedLayer,
  type AdapterSettings,
  CONTRACT_VERSION,
  defineAdapter,
} from "../../src/registry/contract.ts";
import { add, linear, scale } from "../../src/registry/tensor_ops.ts";

/** s = alpha / r, or alpha / sqrt(r) with rsLoRA. */
export function loraScale(
  layer: Pick<AdaptedLayer, "rank" | "alpha">,
  settings: Pick<AdapterSettings, "rslora">,
): number {
  return layer.alpha / (settings.rslora ? Math.sqrt(layer.rank) : layer.rank);
}

/** W + s B A in f32, summed in f64. `weight` is [out, in]. */
export function addLowRank(
  weight: Float32Array,
  a: Float32Array,
  b: Float32Array,
  factor: number,
  { inFeatures, outFeatures }: Pick<AdaptedLayer, "inFeatures" | "outFeatures">,
): Float32Array {
  const rank = a.length / inFeatures;
  const merged = new Float32Array(weight.length);
  const row = new Float64Array(inFeatures);
  for (let o = 0; o < outFeatures; o++) {
    row.fill(0);
    for (let r = 0; r < rank; r++) {
      const f = b[o * rank + r]! * factor;
      if (f !== 0) { for (let i = 0; i < inFeatures; i++) row[i]! += f * a[r * inFeatures + i]!; }
    }
    for (let i = 0; i < inFeatures; i++) merged[o * inFeatures + i] = weight[o * inFeatures + i]! + row[i]!;
  }
  return merged;
}

export default defineAdapter({
  id: "lora",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "low-rank update of each linear layer",
  source: "Hu et al., arXiv 2106.09685",
  options: z.strictObject({}),
  settings: ["alpha", "dropout", "rslora", "loraPlusRatio"],
  suffixes: ["lora_A.weight", "lora_B.weight"],
  parameters: ({ rank, inFeatures, outFeatures }) => [
    {
      name: "A",
      suffix: "lora_A.weight",
      shape: [rank, inFeatures],
      // PEFT's kaiming_uniform_(a = sqrt 5).
      initialisation: { kind: "uniform", bound: 1 / Math.sqrt(inFeatures) },
      group: "A",
    },
    {
      name: "B",
      suffix: "lora_B.weight",
      shape: [outFeatures, rank],
      initialisation: { kind: "constant", value: 0 },
      group: "B",
    },
  ],
  groups: ({ loraPlusRatio }) => ({ B: { learningRateRatio: loraPlusRatio } }),
  forward: ({ x, base, parameter, dropout, layer, settings }) => {
    const h = linear(dropout(x), parameter("A"));
    return add(base(), linear(scale(h, loraScale(layer, settings)), parameter("B")));
  },
  experts: ({ x, base, parameter, linear, layer, settings }) => {
    const h = linear(x, parameter("A"));
    return add(base(), linear(scale(h, loraScale(layer, settings)), parameter("B")));
  },
  merge: (weight, { parameter, layer, settings }) =>
    addLowRank(weight, parameter("A"), parameter("B"), loraScale(layer, settings), layer),
  peft: ({ rank, alpha, dropout, rslora }) => ({
    peftType: "LORA",
    config: { r: rank, lora_alpha: alpha, lora_dropout: dropout, use_rslora: rslora },
  }),
  plainLora: ({ parameter, layer, settings }) => ({
    rank: layer.rank,
    scale: loraScale(layer, settings),
    a: parameter("A"),
    b: parameter("B"),
  }),
});
