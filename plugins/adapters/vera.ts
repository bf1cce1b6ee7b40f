/**
 * VeRA: y = W x + b * (B (d * (A x))) with random A, B that are frozen and shared by all layers, and trainable vectors d [r] and
 * b [out] (Kopiczko et al., arXiv 2310.11454, equation 2). A layer takes as many columns of A and rows of B as it needs.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineAdapter, PluginError } from "../../src/registry/contract.ts";
import { add, linear, matmul, pointwise, rows } from "../../src/registry/tensor_ops.ts";
import { addLowRank } from "./lora.ts";
import { transpose } from "./low_rank.ts";

export default defineAdapter({
  id: "vera",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "two trained vectors a layer around random matrices that all layers share",
  source: "Kopiczko et al., arXiv 2310.11454",
  options: z.strictObject({
    initial: z.number().default(0.1).describe("What the elements of d begin with"),
  }),
  settings: ["dropout"],
  suffixes: ["vera_lambda_d", "vera_lambda_b", "vera_A", "vera_B"],
  parameters: ({ rank, outFeatures }, _, { initial }) => [
    {
      name: "d",
      suffix: "vera_lambda_d",
      shape: [rank],
      initialisation: { kind: "constant", value: initial },
    },
    {
      name: "b",
      suffix: "vera_lambda_b",
      shape: [outFeatures],
      initialisation: { kind: "constant", value: 0 },
    },
  ],
  shared: (layers, { rank }) => {
    if (layers.some((layer) => layer.rank !== rank)) {
      throw new PluginError("vera", "its matrices are shared by all layers, so all have one rank", {
        hint: "leave adapter.rankPattern out",
      });
    }
    const [inFeatures, outFeatures] = [
      Math.max(...layers.map((l) => l.inFeatures)),
      Math.max(...layers.map((l) => l.outFeatures)),
    ];
    return [
      {
        // Kept transposed, so that a layer's part of it is a range of rows. Bounds as in PEFT.
        name: "A",
        suffix: "vera_A",
        shape: [inFeatures, rank],
        initialisation: { kind: "uniform", bound: Math.sqrt(6 / inFeatures) },
        trainable: false,
      },
      {
        name: "B",
        suffix: "vera_B",
        shape: [outFeatures, rank],
        initialisation: { kind: "uniform", bound: Math.sqrt(6 / rank) },
        trainable: false,
      },
    ];
  },
  forward: ({ x, base, parameter, shared, dropout, layer }) => {
    const h = matmul("NN", dropout(x), rows(shared("A"), 0, layer.inFeatures));
    const scaled = pointwise([h, parameter("d")], (h, d) => h!.mul(d!));
    const update = linear(scaled, rows(shared("B"), 0, layer.outFeatures));
    return add(base(), pointwise([update, parameter("b")], (u, b) => u!.mul(b!)));
  },
  merge: (weight, { parameter, shared, layer }) => {
    const { a, b } = factors(parameter, shared, layer);
    return addLowRank(weight, a, b, 1, layer);
  },
  peft: ({ rank, dropout }, { initial }) => ({
    peftType: "VERA",
    config: {
      r: rank,
      bias: "none",
      vera_dropout: dropout,
      d_initial: initial,
      fan_in_fan_out: false,
      init_weights: true,
      projection_prng_key: 0,
      // PEFT could not draw the same random numbers.
      save_projection: true,
    },
    network: (shared) => {
      const inFeatures = shared("A").length / rank;
      return {
        "base_model.vera_A": {
          shape: [rank, inFeatures],
          data: transpose(shared("A"), inFeatures, rank),
        },
        "base_model.vera_B": { shape: [shared("B").length / rank, rank], data: shared("B") },
      };
    },
  }),
  plainLora: ({ parameter, shared, layer }) => ({
    rank: layer.rank,
    scale: 1,
    ...factors(parameter, shared, layer),
  }),
});

/** diag(d) A and diag(b) B of a layer. */
function factors(
  parameter: (name: string) => Float32Array,
  shared: (name: string) => Float32Array,
  { rank, inFeatures, outFeatures }: { rank: number; inFeatures: number; outFeatures: number },
) {
  const [d, b] = [parameter("d"), parameter("b")];
  const a = transpose(shared("A").subarray(0, inFeatures * rank), inFeatures, rank);
  return {
    a: a.map((value, i) => value * d[Math.floor(i / inFeatures)]!),
    b: shared("B").slice(0, outFeatures * rank).map((value, i) => value * b[Math.floor(i / rank)]!),
  };
}
