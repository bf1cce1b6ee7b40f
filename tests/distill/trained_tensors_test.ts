/** Tensors of the student that are trained themselves, in place of an adapter or beside one. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertGreater, assertThrows } from "@std/assert";
import { type Recipe } from "../../src/distill/recipe/recipe.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import { RecipeError } from "../../src/distill/recipe/parse.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { trainedLines } from "../../src/cli/terminal/trained_text.ts";
import { trainedValue } from "../../src/distill/run/inspect_recipe.ts";
import { count } from "../../src/base/units.ts";
import { DEFAULT_DEVICE } from "../../src/gpu/description.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { packBatch } from "../../src/text/packing.ts";
import { modelTest } from "../tensor/harness.ts";
import {
  openTiny,
  type RecipeChanges,
  TINY_VOCABULARY,
  type TinyFiles,
  type TinyModelOptions,
  tinyRecipe,
  tinySample,
  withTiny,
} from "./tiny_model.ts";

/** A recipe of a whole student that trains these tensors, without an adapter. */
function fullRecipe(files: TinyFiles, train: string[], changes: RecipeChanges = {}): Recipe {
  return {
    ...tinyRecipe(files, { student: { model: "teacher", train }, ...changes }),
    adapter: "none",
  };
}

/** What an error says of a recipe, hint included. */
async function refused(files: TinyFiles, recipe: Recipe): Promise<string> {
  try {
    using _ = await openTiny(recipe);
  } catch (error) {
    const { message, hint, where } = error as { message: string; hint?: string; where?: string };
    return `${where}: ${message}; ${hint}`;
  }
  throw new Error(`${files.folder}: the recipe is not refused`);
}

async function trainedNames(recipe: Recipe): Promise<string[]> {
  using setup = await openTiny(recipe);
  return setup.tensors!.trained.map(({ name }) => name);
}

Deno.test("student.train takes kinds, names and ends of names", () =>
  withTiny(async (files) => {
    const names = (train: string[]) => trainedNames(fullRecipe(files, train));
    assertEquals(await names(["norms"]), [
      ...[0, 1].flatMap((i) => [
        `model.layers.${i}.input_layernorm.weight`,
        `model.layers.${i}.post_attention_layernorm.weight`,
      ]),
      "model.norm.weight",
    ]);
    assertEquals((await names(["biases"])).length, 14);
    assertEquals(await names(["head"]), ["lm_head.weight"]);
    const linear = await names(["linear"]);
    assertEquals([linear.length, linear.includes("lm_head.weight")], [14, false]);
    assertEquals(await names(["layers.1.mlp.up_proj", "norm", "q_proj.bias"]), [
      "model.layers.0.self_attn.q_proj.bias",
      "model.layers.1.self_attn.q_proj.bias",
      "model.layers.1.mlp.up_proj.weight",
      "model.layers.1.mlp.up_proj.bias",
      "model.norm.weight",
    ]);
    // Every tensor but the embedding, each once.
    const all = await names(["linear", "norms", "biases", "head", "model.norm.weight"]);
    assertEquals([all.length, new Set(all).size], [14 + 14 + 5 + 1, 14 + 14 + 5 + 1]);
  }, { layers: 2, biases: true }));

Deno.test("what each name means is shown", () =>
  withTiny(async (files) => {
    using setup = await openTiny(fullRecipe(files, ["norms", "head"]));
    const values = 5 * 32 + TINY_VOCABULARY * 32;
    assertEquals(trainedLines(setup), [
      `Trained        ${count(values)} values; no adapter`,
      "  norms: 5 tensors, 160 values, model.layers.0.input_layernorm.weight to model.norm.weight",
      `  head: 1 tensor, ${count(TINY_VOCABULARY * 32)} values, lm_head.weight`,
    ]);
    const shown = trainedValue(setup);
    assertEquals([shown.parameters, shown.adaptedLayers, shown.tensors[1]], [values, [], {
      name: "head",
      tensors: ["lm_head.weight"],
    }]);
    // Values, gradients and two moments, each parameter padded to 64 values.
    const { plan } = planTraining(setup, DEFAULT_DEVICE);
    assertEquals(
      plan.bytesByCategory.get("adapter and optimiser"),
      16 * (5 * 64 + TINY_VOCABULARY * 32 + 32),
    );
  }, { layers: 2 }));

Deno.test("what cannot be trained is refused by name", () =>
  withTiny(async (files) => {
    const told = async (recipe: Recipe, ...parts: string[]) => {
      const text = await refused(files, recipe);
      for (const part of parts) assert(text.includes(part), text);
    };
    await told(fullRecipe(files, ["noms"]), 'did you mean "norms"?', "recipe student.train");
    await told(fullRecipe(files, ["q_porj"]), 'did you mean "q_proj"?');
    await told(fullRecipe(files, ["biases"]), '"biases" are not in this model');
    await told(fullRecipe(files, ["embed_tokens"]), '"embed_tokens" means the embedding');
    await told(fullRecipe(files, ["weight"]), '"weight" means the embedding');
    await told(
      tinyRecipe(files, { student: { model: "teacher", train: ["v_proj"] } }),
      "model.layers.0.self_attn.v_proj.weight is trained itself, and the layer has an adapter too",
    );
    await told(fullRecipe(files, ["norms"], { output: { merged: false } }), "the run would leave nothing");
    const least = { teacher: { model: "t" }, student: { model: "s" }, data: { train: "d" } };
    assertThrows(() => parseRecipe({ ...least, adapter: "none" }), RecipeError, "names nothing");
    assertThrows(() => parseRecipe({ ...least, adapter: { rnk: 3 } }), RecipeError, 'did you mean "rank"?');
  }));

const CROSS_ENTROPY = [{ loss: "cross-entropy" }];

/** Trainers of a recipe on fixed samples. */
async function withTrainer(
  gpu: Gpu,
  recipe: Recipe,
  fn: (trainer: Trainer, start: Float32Array) => Promise<void>,
): Promise<void> {
  using setup = await openTiny(recipe);
  const planned = planTraining(setup, gpu.description);
  const trainer = await Trainer.create(gpu, setup, planned);
  try {
    const { trained } = await setup.trainables.initialValues(recipe.train.seed);
    trainer.setState(trained);
    await fn(trainer, trained);
    gpu.check();
  } finally {
    trainer.destroy();
  }
}

const SAMPLES = [tinySample(40, 30, 1), tinySample(20, 19, 2), tinySample(50, 20, 3)];

const MODEL: TinyModelOptions = { layers: 2, biases: true };

for (
  const [how, changes] of [
    ["in one chunk", {}],
    ["in two chunks of the head, with activations computed twice", {
      train: { headChunk: 64, activationCheckpointing: "on" },
    }],
  ] as const
) {
  modelTest(
    `gradients of trained tensors match central differences ${how}`,
    (gpu) =>
      withTiny(async (files) => {
        const recipe = fullRecipe(files, ["linear", "norms", "biases", "head"], {
          objective: CROSS_ENTROPY,
          ...changes,
          train: { tokensPerMicroBatch: 128, ...("train" in changes ? changes.train : {}) },
        });
        await withTrainer(gpu, recipe, async (trainer, start) => {
          const { layout } = trainer.setup.trainables;
          await trainer.step(0, [packBatch(SAMPLES, 128)]);
          const gradients = await trainer.readGradients();
          const loss = async (name: string, i: number, by: number) => {
            const moved = start.slice();
            moved[layout.get(name).offset + i]! += by;
            trainer.setState(moved);
            return (await trainer.evaluate(SAMPLES)).losses["cross-entropy"]!;
          };
          for (
            const name of [
              "model.layers.0.input_layernorm.weight",
              "model.norm.weight",
              "model.layers.1.self_attn.k_proj.bias",
              "model.layers.0.mlp.down_proj.bias",
              "lm_head.weight",
              "model.layers.0.self_attn.q_proj.weight",
              "model.layers.1.mlp.gate_proj.weight",
            ]
          ) {
            const gradient = gradients.get(name)!;
            const i = gradient.reduce((best, g, j) => Math.abs(g) > Math.abs(gradient[best]!) ? j : best, 0);
            const step = 0.02;
            const slope = (await loss(name, i, step) - await loss(name, i, -step)) / (2 * step);
            const size = Math.abs(slope);
            assertGreater(size, 1e-3, name);
            assertAlmostEquals(gradient[i]!, slope, 0.01 * size + 1e-5, `${name}[${i}]`);
          }
        });
      }, MODEL),
  );
}
