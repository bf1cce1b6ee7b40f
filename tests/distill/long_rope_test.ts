/** Text that grows beyond the length at which a model's rotary positions change: with a cache as without. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { generationPlan, Generator } from "../../src/distill/generate/generator.ts";
import { Model, uploadWeights } from "../../src/distill/inputs/models.ts";
import { tinyConfig } from "../models/tiny_configs.ts";
import { modelTest } from "../tensor/harness.ts";
import { Reader } from "./logits.ts";
import { TINY_VOCABULARY, withTiny } from "./tiny_model.ts";

/** `original_max_position_embeddings` of the tiny Phi-3. */
const BEYOND = 16;

modelTest(
  "a sequence that grows beyond its first context is continued as if it had been read anew",
  (gpu) =>
    withTiny(async (files) => {
      const model = await Model.open(files.teacher, { category: "weights" });
      const length = 32;
      const options = { sequences: 2, length, prefillTokens: 8 };
      const weights = await uploadWeights(gpu, generationPlan(gpu.description, model, options), [model]);
      const generator = await Generator.create(gpu, model, weights, options);
      using reader = await Reader.open(gpu, model, length);
      // One crosses the boundary in its text, the other has it behind it.
      const prompts = [11, 20].map((count) => Int32Array.from({ length: count }, (_, i) => 3 + (7 * i) % 90));
      const greedy = { temperature: 0, topK: 0, topP: 1, seed: 1, stopTokens: [] };
      const texts = await generator.generate(prompts, { ...greedy, maxTokens: 9 });
      for (const [i, prompt] of prompts.entries()) {
        const sequence = [...prompt];
        for (const token of texts[i]!.tokens) {
          const logits = await reader.next(Int32Array.from(sequence));
          const best = logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
          assertEquals(token, best, `token ${sequence.length} of sequence ${i}`);
          sequence.push(token);
        }
        assert(sequence.length > BEYOND);
      }
      generator.destroy();
      for (const w of weights.values()) w.destroy();
      model.close();
    }, { config: tinyConfig("Phi3ForCausalLM", TINY_VOCABULARY) }),
);
