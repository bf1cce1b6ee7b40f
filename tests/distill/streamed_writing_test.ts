/** Texts of models whose layers come from disk: what models that are there write, and as many bytes as planned. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals } from "@std/assert";
import { generationPlan, Generator, type GeneratorOptions } from "../../src/distill/generate/generator.ts";
import { Model, uploadWeights } from "../../src/distill/inputs/models.ts";
import { StreamedLayers } from "../../src/distill/program/streamed_layers.ts";
import { tinyConfig } from "../models/tiny_configs.ts";
import { modelTest, testGpu } from "../tensor/harness.ts";
import { TINY_VOCABULARY, type TinyModelOptions, tinySample, withTiny } from "./tiny_model.ts";

const LENGTH = 26;
/** Three at once, the fourth on its own; one longer than a pass takes in. */
const PROMPTS = [5, 12, 1, 7].map((length, i) => tinySample(length, 1, i + 1).ids);

async function written(model: Model, options: GeneratorOptions) {
  const gpu = await testGpu();
  const planned = generationPlan(gpu.description, model, options);
  const before = gpu.allocatedBytes;
  const weights = await uploadWeights(gpu, planned, [model]);
  const generator = await Generator.create(gpu, model, weights, options);
  try {
    assertEquals(gpu.allocatedBytes - before, planned.totalBytes);
    const sampling = { temperature: 0.7, topK: 20, topP: 1, seed: 3, stopTokens: [2] };
    return await generator.generate(PROMPTS, { ...sampling, maxTokens: 9 });
  } finally {
    generator.destroy();
    for (const w of weights.values()) w.destroy();
  }
}

const MODELS: readonly [string, TinyModelOptions][] = [
  ["layers of one kind", { layers: 4 }],
  // A window in one layer of two, rotated otherwise.
  ["layers of two kinds", { config: { ...tinyConfig("Gemma3ForCausalLM", TINY_VOCABULARY) } }],
  // Texts that grow beyond 16 tokens are taken in again.
  ["a rotation by length", { config: tinyConfig("Phi3ForCausalLM", TINY_VOCABULARY) }],
  ["experts", { config: tinyConfig("Qwen3MoeForCausalLM", TINY_VOCABULARY) }],
];

for (const [what, tiny] of MODELS) {
  modelTest(
    `a model with ${what} writes the same when its layers come from disk`,
    (gpu) =>
      withTiny(async ({ teacher }) => {
        const model = await Model.open(teacher, { category: "weights" });
        try {
          const options = { sequences: 3, length: LENGTH, prefillTokens: 8 };
          const sizes = { tokens: 8, positions: LENGTH };
          const layers = new StreamedLayers(model, sizes, gpu.description, new Set());
          assertEquals(
            await written(model, { ...options, streamed: { layers } }),
            await written(model, options),
          );
        } finally {
          model.close();
        }
      }, tiny),
  );
}
