/**
 * Full fine-tuning against PyTorch. `fixtures/full_tuning.json` holds four AdamW steps of transformers' Llama in f32: half
 * cross-entropy, half forward KL to another model, clipping at 1, weight decay on matrices alone.
 */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertGreater } from "@std/assert";
import type { Recipe } from "../../src/distill/recipe/recipe.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { packBatch } from "../../src/text/packing.ts";
import { gpuTest } from "../tensor/harness.ts";
import { openTiny, tinyRecipe, tinySample, withTiny, writeTinyModel } from "./tiny_model.ts";

interface Golden {
  readonly steps: readonly {
    readonly loss: number;
    readonly crossEntropy: number;
    readonly forwardKl: number;
    readonly gradientNorm: number;
    readonly tokens: number;
  }[];
  /** How far each tensor has moved (L2), and some of its values. */
  readonly tensors: Readonly<Record<string, { moved: number; at: number[]; values: number[] }>>;
}

const { learningRate, weightDecay, clip, ...goldens } = JSON.parse(
  await Deno.readTextFile(new URL("fixtures/full_tuning.json", import.meta.url)),
) as { learningRate: number; weightDecay: number; clip: number } & Record<string, Golden>;

const STEPS = [0, 1, 2, 3];
/** That of the golden. */
const vocabularySize = 199;

/** Runs the steps of the golden; returns what the trainer reports, where it began and where it ended. */
async function follow(gpu: Gpu, recipe: Recipe) {
  using setup = await openTiny(recipe);
  const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
  const { layout } = setup.trainables;
  try {
    const { trained } = await setup.trainables.initialValues(1);
    trainer.setState(trained);
    for (const step of STEPS) {
      const samples = [
        tinySample(24, 18, 10 + step, vocabularySize),
        tinySample(17, 16, 20 + step, vocabularySize),
      ];
      await trainer.step(step, [packBatch(samples, 64)]);
    }
    const metrics = await trainer.collect();
    const { parameters } = await trainer.readState();
    return { metrics, before: layout.gather(trained), after: layout.gather(parameters) };
  } finally {
    trainer.destroy();
  }
}

const SELECTIONS: Readonly<Record<string, string[]>> = {
  "norms and head": ["norms", "head"],
  "all but the embedding": ["linear", "norms", "biases", "head"],
};

for (const [what, train] of Object.entries(SELECTIONS)) {
  gpuTest(`four steps of ${what} follow PyTorch`, (gpu) =>
    withTiny(async (files) => {
      const student = `${files.folder}/student`;
      await writeTinyModel(student, { layers: 2, biases: true, vocabularySize });
      const recipe: Recipe = {
        ...tinyRecipe(files, {
          student: { model: student, train },
          objective: [{ loss: "cross-entropy", weight: 0.5 }, { loss: "forward-kl", weight: 0.5 }],
          train: { steps: STEPS.length, learningRate, weightDecay, clip },
        }),
        adapter: "none",
      };
      const { steps, tensors } = goldens[what]!;
      const { metrics, before, after } = await follow(gpu, recipe);
      for (const [i, { loss, crossEntropy, forwardKl, gradientNorm, tokens }] of steps.entries()) {
        const found = metrics[i]!;
        assertEquals(found.supervisedTokens, tokens);
        assertAlmostEquals(found.loss, loss, 2e-4, `loss of step ${i + 1}`);
        assertAlmostEquals(found.losses["cross-entropy"]!, crossEntropy, 4e-4);
        assertAlmostEquals(found.losses["forward-kl"]!, forwardKl, 4e-4);
        assertAlmostEquals(found.gradientNorm, gradientNorm, 1e-3 * gradientNorm, `norm of step ${i + 1}`);
      }
      // The steps do something that the tolerances can see.
      assertGreater(steps[0]!.loss - steps.at(-1)!.loss, 0.1);
      assertEquals([...after.keys()].sort(), Object.keys(tensors).sort());
      for (const [name, { moved, at, values }] of Object.entries(tensors)) {
        const [from, to] = [before.get(name)!, after.get(name)!];
        const distance = Math.hypot(...to.map((v, i) => v - from[i]!));
        assert(Math.abs(distance - moved) <= 0.01 * moved, `${name} moved ${distance}, expected ${moved}`);
        // An entry whose gradient is rounding alone goes either way, so a few may differ by what the steps allow.
        at.forEach((i, k) => assertAlmostEquals(to[i]!, values[k]!, 2e-4, `${name}[${i}]`));
      }
    }, { layers: 1, seed: 5, vocabularySize }));
}
