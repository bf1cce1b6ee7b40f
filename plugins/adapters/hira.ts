/**
 * HiRA: y = (W + W * (B A)) x, where * is elementwise: a change of high rank from low-rank factors (Huang et al., ICLR 2025,
 * "HiRA: Parameter-Efficient Hadamard High-Rank Adaptation"). As in PEFT there is no scale: alpha has no effect.
 *
 * B A and its gradient are matrices of the weight's size in f32, two for each adapted layer that is in work.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineAdapter } from "../../src/registry/contract.ts";
import { add, linear, matmul, timesWeight } from "../../src/registry/tensor_ops.ts";
import { product } from "./low_rank.ts";

export default defineAdapter({
  id: "hira",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "the weight times a low-rank matrix, elementwise",
  source: "Huang et al., ICLR 2025",
  options: z.strictObject({}),
  settings: ["dropout", "loraPlusRatio"],
  suffixes: ["hira_A", "hira_B"],
  parameters: ({ rank, inFeatures, outFeatures }) => [
    {
      name: "A",
      suffix: "hira_A",
      shape: [rank, inFeatures],
      initialisation: { kind: "uniform", bound: 1 / Math.sqrt(inFeatures) },
      group: "A",
    },
    {
      name: "B",
      suffix: "hira_B",
      shape: [outFeatures, rank],
      initialisation: { kind: "constant", value: 0 },
      group: "B",
    },
  ],
  groups: ({ loraPlusRatio }) => ({ B: { learningRateRatio: loraPlusRatio } }),
  forward: ({ x, base, weight, parameter, dropout }) => {
    const change = timesWeight(matmul("NN", parameter("B"), parameter("A")), weight);
    return add(base(), linear(dropout(x), change));
  },
  merge: (weight, { parameter, layer: { rank, inFeatures, outFeatures } }) => {
    const change = product(parameter("B"), parameter("A"), outFeatures, rank, inFeatures);
    return weight.map((w, i) => w * (1 + change[i]!));
  },
  peft: ({ rank, dropout }) => ({
    peftType: "HIRA",
    config: {
      r: rank,
      exclude_modules: null,
      fan_in_fan_out: false,
      hira_dropout: dropout,
      init_weights: true,
      rank_pattern: {},
    },
  }),
});
