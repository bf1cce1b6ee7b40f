/**
 * Instance-gated LoRA: y = W x + s sum_e g_e B_e A_e x with experts A_e, B_e in every layer and gates g that one router computes from
 * the sample's prompt: the softmax over the k largest of R p, where p is the mean of the prompt's token embeddings (LoRA-MoE of
 * Octavius, Chen et al., arXiv 2311.02684; their code takes k = 2 and begins R as N(0, 1)).
 *
 * As in their code, gates are normalised over the chosen experts, one router serves all layers, and no loss balances the experts. Ours:
 * the scale s, which their code leaves out, the bound of A's start, which is LoRA's, and the prompt, which is all that stands before the
 * first supervised token, where their code takes the text of the first question.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineAdapter } from "../../src/registry/contract.ts";
import { add, linear, pointwise, reshape, scale, topKSoftmax } from "../../src/registry/tensor_ops.ts";
import { loraScale } from "./lora.ts";

export default defineAdapter({
  id: "instance-gated-lora",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "a mixture of LoRAs whose gates depend on the sample's prompt",
  source: "Chen et al., arXiv 2311.02684",
  options: z.strictObject({
    experts: z.int().min(1).default(4).describe("LoRAs in each layer"),
    topK: z.int().min(1).default(2).describe("How many of them a sample mixes"),
  }).refine(({ experts, topK }) => topK <= experts, { path: ["topK"], message: "must be at most experts" }),
  settings: ["alpha", "dropout", "rslora", "loraPlusRatio"],
  suffixes: ["instance_gated_A.weight", "instance_gated_B.weight", "instance_router.weight"],
  readsPrompt: true,
  // The experts side by side are one LoRA of rank E r, whose inner values the gates scale.
  parameters: ({ rank, inFeatures, outFeatures }, _, { experts }) => [
    {
      name: "A",
      suffix: "instance_gated_A.weight",
      shape: [experts * rank, inFeatures],
      initialisation: { kind: "uniform", bound: 1 / Math.sqrt(inFeatures) },
      group: "A",
    },
    {
      name: "B",
      suffix: "instance_gated_B.weight",
      shape: [outFeatures, experts * rank],
      initialisation: { kind: "constant", value: 0 },
      group: "B",
    },
  ],
  shared: (_layers, _settings, { experts }, { hiddenSize }) => [
    {
      name: "router",
      suffix: "instance_router.weight",
      shape: [experts, hiddenSize],
      initialisation: { kind: "normal", deviation: 1 },
    },
  ],
  groups: ({ loraPlusRatio }) => ({ B: { learningRateRatio: loraPlusRatio } }),
  forward: ({ x, base, parameter, shared, prompt, once, dropout, layer, settings, options }) => {
    const gates = once("gates", () => topKSoftmax(linear(prompt(), shared("router")), options.topK)); // [T, E]
    const h = linear(dropout(x), parameter("A")); // [T, E r]
    const pairs = x.dim(0) * options.experts;
    const gated = pointwise(
      [reshape(h, [pairs, layer.rank]), reshape(gates, [pairs, 1])],
      (h, g) => h!.mul(g!),
    );
    const update = linear(scale(reshape(gated, h.shape), loraScale(layer, settings)), parameter("B"));
    return add(base(), update);
  },
});
