/**
 * MoSLoRA: y = W x + s B M A x with a trainable mixer M [r, r] between the factors (Wu et al., arXiv 2406.11909, equation 6).
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineAdapter } from "../../src/registry/contract.ts";
import { add, linear, scale } from "../../src/registry/tensor_ops.ts";
import { addLowRank, loraScale } from "./lora.ts";
import { product } from "./low_rank.ts";

export default defineAdapter({
  id: "moslora",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "LoRA with a trainable mixer between its factors",
  source: "Wu et al., arXiv 2406.11909",
  options: z.strictObject({
    mixer: z.enum(["uniform", "identity"]).default("uniform").describe(
      "How the mixer begins: uniform in +-1/sqrt(rank), or as the identity, which is LoRA at the first step",
    ),
  }),
  settings: ["alpha", "dropout", "rslora", "loraPlusRatio"],
  suffixes: ["moslora_A.weight", "moslora_B.weight", "moslora_mixer.weight"],
  parameters: ({ rank, inFeatures, outFeatures }, _, { mixer }) => [
    {
      name: "A",
      suffix: "moslora_A.weight",
      shape: [rank, inFeatures],
      initialisation: { kind: "uniform", bound: 1 / Math.sqrt(inFeatures) },
      group: "A",
    },
    {
      name: "M",
      suffix: "moslora_mixer.weight",
      shape: [rank, rank],
      initialisation: mixer === "uniform"
        ? { kind: "uniform", bound: 1 / Math.sqrt(rank) }
        : { kind: "given", values: () => identity(rank) },
      group: "A",
    },
    {
      name: "B",
      suffix: "moslora_B.weight",
      shape: [outFeatures, rank],
      initialisation: { kind: "constant", value: 0 },
      group: "B",
    },
  ],
  groups: ({ loraPlusRatio }) => ({ B: { learningRateRatio: loraPlusRatio } }),
  forward: ({ x, base, parameter, dropout, layer, settings }) => {
    const mixed = linear(linear(dropout(x), parameter("A")), parameter("M"));
    return add(base(), linear(scale(mixed, loraScale(layer, settings)), parameter("B")));
  },
  merge: (weight, { parameter, layer, settings }) => {
    const { rank, inFeatures } = layer;
    const mixed = product(parameter("M"), parameter("A"), rank, rank, inFeatures);
    return addLowRank(weight, mixed, parameter("B"), loraScale(layer, settings), layer);
  },
  // B M takes the place of B.
  plainLora: ({ parameter, layer, settings }) => ({
    rank: layer.rank,
    scale: loraScale(layer, settings),
    a: parameter("A"),
    b: product(parameter("B"), parameter("M"), layer.outFeatures, layer.rank, layer.rank),
  }),
});

/** The identity matrix [size, size]. */
export function identity(size: number): Float32Array {
  return Float32Array.from({ length: size * size }, (_, i) => Number(i % (size + 1) === 0));
}
