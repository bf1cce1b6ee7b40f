/**
 * LoRA-FA: LoRA whose A stays as it was drawn, so that a layer's input need not be kept for its gradient (Zhang et al.,
 * arXiv 2308.03303). B follows its plain gradient: the correction of the gradient by (A A^T)^-1 that some implementations add is
 * left out.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineAdapter } from "../../src/registry/contract.ts";
import lora, { loraScale } from "./lora.ts";

export default defineAdapter({
  id: "lora-fa",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "LoRA with a frozen random A; only B is trained",
  source: "Zhang et al., arXiv 2308.03303",
  options: z.strictObject({}),
  settings: ["alpha", "dropout", "rslora"],
  suffixes: ["lora_fa_A.weight", "lora_fa_B.weight"],
  parameters: ({ rank, inFeatures, outFeatures }) => [
    {
      name: "A",
      suffix: "lora_fa_A.weight",
      shape: [rank, inFeatures],
      initialisation: { kind: "uniform", bound: 1 / Math.sqrt(inFeatures) },
      trainable: false,
    },
    {
      name: "B",
      suffix: "lora_fa_B.weight",
      shape: [outFeatures, rank],
      initialisation: { kind: "constant", value: 0 },
    },
  ],
  forward: lora.forward,
  merge: lora.merge,
  plainLora: ({ parameter, layer, settings }) => ({
    rank: layer.rank,
    scale: loraScale(layer, settings),
    a: parameter("A"),
    b: parameter("B"),
  }),
});
