/** Texts and losses of models whose layers come from disk: those of models that are there, in as many bytes as planned. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals } from "@std/assert";
import { OpenedModel } from "../../src/distill/evaluate/measured_model.ts";
import { generationPlan, Generator, type GeneratorOptions } from "../../src/distill/generate/generator.ts";
import { Model, uploadWeights } from "../../src/distill/inputs/models.ts";
import { TextWriter } from "../../src/distill/generate/text_writer.ts";
import { StreamedLayers } from "../../src/distill/program/streamed/streamed_layers.ts";
import { Registry } from "../../src/registry/registry.ts";
import { tinyConfig } from "../models/tiny_configs.ts";
import { builtins } from "../../plugins/mod.ts";
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

modelTest(
  "losses of a model are the same when its layers come from disk",
  (gpu) =>
    withTiny(async ({ teacher }) => {
      const opened = await OpenedModel.open(teacher, new Registry().addAll(builtins));
      try {
        // Several passes of 1024 tokens.
        const samples = Array.from({ length: 70 }, (_, i) => tinySample(20 + i % 30, 9, i + 1));
        const measured = async (stream: boolean) => {
          const found = await opened.measure(
            { contextLength: 64, stream },
            samples,
            async (program) => [await program.mean(samples), await program.sequences(samples)] as const,
            gpu,
          );
          gpu.check();
          return found;
        };
        assertEquals(await measured(true), await measured(false));
      } finally {
        opened.close();
      }
    }, { layers: 4, vocabularySize: TINY_VOCABULARY }),
);

Deno.test("a model with its layers from disk writes as one that is there, prepared as users do", () =>
  withTiny(async ({ teacher }) => {
    const texts: string[] = [];
    for (const stream of [true, false]) {
      const writer = await TextWriter.open(teacher);
      try {
        await writer.prepare({ sequences: 1, length: 30, stream });
        const sampling = { temperature: 0, topK: 0, topP: 1, seed: 1, maxTokens: 6 };
        const [found] = await writer.write([writer.encode("the cat")], sampling);
        texts.push(found!.text);
      } finally {
        writer.close();
      }
    }
    assertEquals(texts[0], texts[1]);
  }, { layers: 3 }));
