/**
 * A step as the trainer takes it, its head and loss by chunks of rows, against the gradients of PEFT: models whose logits are more than a
 * product, models with fused layers, and one with experts. `families_test.ts` has the gradients of every family in a program of its own.
 */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import type { AdapterRecipe } from "../../src/distill/recipe/recipe.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import { readPeftAdapter } from "../../src/formats/peft/peft.ts";
import type { EncodedSample } from "../../src/text/encode.ts";
import { packBatch } from "../../src/text/packing.ts";
import { type AdaptedRecipe, tinySetup } from "../distill/tiny_model.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { testGpu } from "../tensor/harness.ts";
import { readArrays, readGradients } from "./family_goldens.ts";

/** Soft caps of logits, and a divisor of them. Then what is split or stored the other way round, and adapters of experts. */
const GOLDENS: Readonly<Record<string, Partial<AdapterRecipe>>> = {
  gemma2: {},
  granite: {},
  gpt2: {},
  phi3: {},
  qwen3_moe: {
    targets: ["q_proj", "k_proj", "v_proj", "o_proj", "experts"],
    rankPattern: { gate_up_proj: 8 },
    alphaPattern: { gate_up_proj: 16 },
  },
};
/** Rows of a chunk: a stream of 128 has two, and the second sequence lies in both. */
const CHUNK = 64;

for (const [name, settings] of Object.entries(GOLDENS)) {
  sharedTest(`${name}: a step of the trainer has the loss and gradients of PEFT`, async () => {
    const folder = sharedPath(`goldens/families/${name}`);
    const { ids } = JSON.parse(await Deno.readTextFile(`${folder}/ids.json`)) as { ids: number[][] };
    const reference = await readArrays(`${folder}/lora_grads.safetensors`);
    const recipe = parseRecipe({
      teacher: { model: folder },
      student: { model: "teacher" },
      data: { train: "unread.jsonl", contextLength: ids[0]!.length },
      objective: [{ loss: "cross-entropy", weight: 1 }],
      adapter: { rank: 4, alpha: 8, ...settings },
      train: { steps: 1, tokensPerMicroBatch: 128, headChunk: CHUNK },
    }) as AdaptedRecipe;
    using setup = await tinySetup(recipe);
    const gpu = await testGpu();
    const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
    try {
      assertEquals(trainer.planned.choices.chunkRows, CHUNK);
      const adapter = await readPeftAdapter(`${folder}/adapter`);
      const { layout } = setup.trainables;
      const flat = new Float32Array(layout.total);
      layout.scatter(
        flat,
        new Map([...adapter.tensors].map(([key, { data }]) => [key, data as Float32Array])),
      );
      trainer.executable.poison();
      trainer.setState(flat);
      // Both sequences and filler in one stream of several chunks.
      const samples = ids.map((tokens): EncodedSample => ({
        source: { file: "ids.json", line: 1 },
        ids: Int32Array.from(tokens),
        supervised: Uint8Array.from(tokens, (_, t) => Number(t > 0)),
      }));
      await trainer.step(0, [packBatch(samples, trainer.planned.choices.tokens)]);
      const found = await trainer.readGradients();
      const [metrics] = await trainer.collect();
      assertAlmostEquals(metrics!.losses["cross-entropy"]!, reference.get("loss")![0]!, 2e-5);
      const gradients = await readGradients(`${folder}/lora_grads.safetensors`, `${folder}/adapter`);
      for (const [key, wanted] of gradients) {
        const mine = found.get(key);
        assert(mine, `no gradient of ${key} among ${[...found.keys()].slice(0, 3)}`);
        const norm = Math.hypot(...wanted);
        const relative = Math.hypot(...wanted.map((w, i) => mine[i]! - w)) / norm;
        assert(relative < 2e-4, `the gradient of ${key} differs by ${relative} of its norm`);
      }
      assertEquals(found.size, gradients.size);
      assertEquals(found.size, reference.size - 2);
    } finally {
      trainer.destroy();
    }
  });
}
