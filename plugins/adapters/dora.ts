/**
 * DoRA: y = (m / n) (W x + s B A x) with a trainable magnitude m [out] and n the norms of the rows of V = W + s B A, seen as constants
 * by the gradient (Liu et al., arXiv 2402.09353, equations 5 and 11).
 *
 * n^2 = |W_o|^2 + sum_r B[o, r] (2 s (W A^T)[o, r] + s^2 (B A A^T)[o, r]) needs no matrix of the weight's size beside the weight.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineAdapter, detach, sqrt } from "../../src/registry/contract.ts";
import { add, linear, matmul, pointwise, scale, sumRows } from "../../src/registry/tensor_ops.ts";
import lora, { addLowRank, loraScale } from "./lora.ts";
import { squaredRowNorms } from "./low_rank.ts";
import { identity } from "./moslora.ts";

export default defineAdapter({
  id: "dora",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "LoRA on the direction of each row of the weight, with a trainable length",
  source: "Liu et al., arXiv 2402.09353",
  options: z.strictObject({}),
  settings: ["alpha", "dropout", "rslora", "loraPlusRatio"],
  suffixes: ["dora_A.weight", "dora_B.weight", "dora_magnitude", "dora_squared_norms", "dora_identity"],
  parameters: ({ rank, inFeatures, outFeatures }) => [
    {
      name: "A",
      suffix: "dora_A.weight",
      shape: [rank, inFeatures],
      initialisation: { kind: "uniform", bound: 1 / Math.sqrt(inFeatures) },
      group: "A",
    },
    {
      name: "B",
      suffix: "dora_B.weight",
      shape: [outFeatures, rank],
      initialisation: { kind: "constant", value: 0 },
      group: "B",
    },
    {
      name: "magnitude",
      suffix: "dora_magnitude",
      shape: [outFeatures],
      initialisation: {
        kind: "fromWeight",
        compute: (weight) => Float32Array.from(squaredRowNorms(weight, inFeatures), Math.sqrt),
      },
      // As in PEFT, where LoRA+'s ratio goes for everything that is no matrix.
      group: "B",
    },
    {
      name: "squaredNorms",
      suffix: "dora_squared_norms",
      shape: [outFeatures],
      initialisation: {
        kind: "fromWeight",
        compute: (weight) => Float32Array.from(squaredRowNorms(weight, inFeatures)),
      },
      trainable: false,
    },
    // A product with it transposes B.
    {
      name: "identity",
      suffix: "dora_identity",
      shape: [rank, rank],
      initialisation: { kind: "given", values: () => identity(rank) },
      trainable: false,
    },
  ],
  groups: ({ loraPlusRatio }) => ({ B: { learningRateRatio: loraPlusRatio } }),
  forward: ({ x, base, weight, parameter, dropout, layer, settings }) => {
    const [a, b] = [parameter("A"), parameter("B")];
    const s = loraScale(layer, settings);
    const adapted = add(base(), linear(scale(linear(dropout(x), a), s), b));
    const bT = matmul("NT", parameter("identity"), b); // [r, out]
    const inner = add(matmul("NT", a, weight, 2 * s), matmul("NT", matmul("NT", a, a, s * s), b)); // [r, out]
    const change = sumRows(pointwise([bT, inner], (b, c) => b!.mul(c!))); // [out]
    return pointwise(
      [adapted, parameter("magnitude"), parameter("squaredNorms"), change],
      (y, m, norms, change) => y!.mul(m!).div(detach(sqrt(norms!.add(change!)))),
    );
  },
  merge: (weight, { parameter, layer, settings }) => {
    const v = addLowRank(weight, parameter("A"), parameter("B"), loraScale(layer, settings), layer);
    const norms = squaredRowNorms(v, layer.inFeatures);
    const m = parameter("magnitude");
    return v.map((value, i) => {
      const o = Math.floor(i / layer.inFeatures);
      return value * (m[o]! / Math.sqrt(norms[o]!));
    });
  },
  peft: (settings, options) => ({
    peftType: "LORA",
    config: { ...lora.peft!(settings, options).config, use_dora: true },
    suffixes: { A: "lora_A.weight", B: "lora_B.weight", magnitude: "lora_magnitude_vector" },
  }),
});
