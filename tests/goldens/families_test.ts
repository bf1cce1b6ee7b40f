/** Models of every family against what transformers and PEFT give: ../shared/goldens/families/README.md has the tolerances. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { generationPlan, Generator } from "../../src/distill/generate/generator.ts";
import { Model, uploadWeights } from "../../src/distill/inputs/models.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { FAMILIES, testGpu } from "../tensor/harness.ts";
import { LoraModel, meanCrossEntropy, readArrays, readGradients } from "./family_goldens.ts";

const GOLDENS = [
  "llama3_rope",
  "llama_tied_bias",
  "mistral",
  "qwen2",
  "qwen3",
  "phi3",
  "phi3_longrope",
  "gemma2",
  "gemma3_text",
  "smollm3",
  "olmo2",
  "granite",
  "gpt2",
  "gpt_neox",
  "qwen3_moe",
].map((name) => `families/${name}`).concat("map_neo/neo192", "map_neo/neo256");

/** Other storages and layouts of the same weights: one kernel family is enough, as kernels of each storage have tests of their own. */
const VARIANTS = [
  "families/llama_tied_bias/bf16",
  "families/llama_tied_bias/f16",
  "families/qwen2/bf16",
  "families/qwen2/f16",
  "families/llama3_rope/sharded",
  "families/gpt2/hub_style",
];

const goldenPath = (name: string, file = "") => sharedPath(`goldens/${name}/${file}`);
const readJson = async (path: string) => JSON.parse(await Deno.readTextFile(path));

function worst(found: Float32Array, expected: Float32Array): number {
  assertEquals(found.length, expected.length);
  return found.reduce((most, v, i) => {
    const difference = Math.abs(v - expected[i]!);
    // NaN must not pass for a small difference.
    return difference <= most ? most : difference;
  }, 0);
}

const norm = (a: Float32Array) => Math.sqrt(a.reduce((sum, v) => sum + v * v, 0));

for (const name of GOLDENS) {
  for (const family of FAMILIES) {
    sharedTest(`${name}: logits, hidden states and gradients of a LoRA [${family}]`, async () => {
      const { ids } = await readJson(goldenPath(name, "ids.json"));
      const expected = await readArrays(goldenPath(name, "expected.safetensors"));
      const adapter = goldenPath(name, "adapter");
      const model = await LoraModel.open(goldenPath(name), ids, family, adapter);
      try {
        const plain = await model.run(false);
        assert(worst(plain.logits, expected.get("logits")!) < 2e-4, "logits");
        const layers = [...expected.keys()].filter((key) => key.startsWith("layer_")).length;
        const names = [["embed", "embeddings"], ["final_norm", "final_norm"]];
        for (let i = 0; i < layers; i++) names.push([`layer_${i}`, `model.layers.${i}.output`]);
        for (const [theirs, ours] of names) {
          const wanted = expected.get(theirs!)!;
          // Theirs are of the first sequence alone.
          const found = plain.taps.get(ours!)!.subarray(0, wanted.length);
          const largest = wanted.reduce((most, v) => Math.max(most, Math.abs(v)), 1);
          const difference = worst(found, wanted);
          assert(difference < 2e-5 * largest, `${theirs} differs by ${difference} at ${largest}`);
        }

        const withAdapter = await model.run(true);
        const reference = await readArrays(goldenPath(name, "lora_grads.safetensors"));
        const last = reference.get("logits_last")!;
        const width = last.length / ids.length;
        ids.forEach((sequence: number[], i: number) => {
          const row = (i + 1) * sequence.length - 1;
          const found = withAdapter.logits.subarray(row * width, (row + 1) * width);
          assert(worst(found, last.subarray(i * width, (i + 1) * width)) < 2e-4, "adapted logits");
        });
        const { loss, gradient } = meanCrossEntropy(withAdapter.logits, ids);
        assert(Math.abs(loss - reference.get("loss")![0]!) < 2e-5, `the loss is ${loss}`);
        const found = await model.gradients(gradient);
        const gradients = await readGradients(goldenPath(name, "lora_grads.safetensors"), adapter);
        for (const [key, wanted] of gradients) {
          const mine = found.get(key);
          assert(mine, `no gradient of ${key}`);
          const relative = norm(mine.map((v, i) => v - wanted[i]!)) / norm(wanted);
          assert(relative < 2e-4, `the gradient of ${key} differs by ${relative} of its norm`);
        }
        assertEquals(found.size, gradients.size);
        assertEquals(gradients.size, reference.size - 2);
      } finally {
        model.free();
      }
    });
  }

  sharedTest(`${name}: greedy tokens with a cache`, async () => {
    const golden = await readJson(goldenPath(name, "greedy.json"));
    const gpu = await testGpu();
    const model = await Model.open(goldenPath(name), { category: "weights" });
    const options = { sequences: 1, length: golden.prompt_ids.length + golden.new_ids.length };
    const weights = await uploadWeights(gpu, generationPlan(gpu.description, model, options), [model]);
    const generator = await Generator.create(gpu, model, weights, options);
    try {
      const sampling = { temperature: 0, topK: 0, topP: 1, seed: 1, stopTokens: [] };
      const [text] = await generator.generate([Int32Array.from(golden.prompt_ids)], {
        ...sampling,
        maxTokens: golden.new_ids.length,
      });
      assertEquals([...text!.tokens], golden.new_ids);
    } finally {
      generator.destroy();
      for (const w of weights.values()) w.destroy();
      model.close();
    }
  });
}

for (const name of VARIANTS) {
  sharedTest(`${name}: logits`, async () => {
    const parent = name.split("/").slice(0, 2).join("/");
    const { ids } = await readJson(goldenPath(parent, "ids.json"));
    const path = await Deno.stat(goldenPath(name, "expected.safetensors")).then(() => name, () => parent);
    const expected = await readArrays(goldenPath(path, "expected.safetensors"));
    const model = await LoraModel.open(goldenPath(name), ids, "subgroup8");
    const { logits } = await model.run(false);
    model.free();
    assert(worst(logits, expected.get("logits")!) < 2e-4);
  });
}
