/** Several teachers, the student itself and texts of teachers as target, against PyTorch and PEFT: goldens/teachers. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import type { RecipeInput } from "../../src/distill/recipe/recipe.ts";
import { readPeftAdapter } from "../../src/formats/peft/peft.ts";
import type { KernelFamily } from "../../src/gpu/description.ts";
import type { PackedBatch } from "../../src/text/packing.ts";
import { type AdaptedRecipe, tinySetup } from "../distill/tiny_model.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { FAMILIES, testGpu } from "../tensor/harness.ts";
import { goldenArrays } from "./arrays.ts";
import { goldenBatch, near, relative } from "./trajectory.ts";

const FOLDER = "goldens/teachers/";
const PREFIX = "base_model.model.";

/** A step of stories260K with an adapter that is there already: what is measured, and the gradients. */
async function stepWith(
  family: KernelFamily,
  adapter: string,
  { teacher, objective }: Pick<RecipeInput, "teacher" | "objective">,
  batch: (tokens: number) => PackedBatch,
  tokens: number,
) {
  const recipe = parseRecipe({
    teacher,
    student: { model: sharedPath("models/stories260K") },
    data: { train: "unread.jsonl", contextLength: 72 },
    objective,
    adapter: { rank: 4, alpha: 8 },
    train: { steps: 1, tokensPerMicroBatch: tokens },
  }) as AdaptedRecipe;
  using setup = await tinySetup(recipe);
  const gpu = await testGpu(family);
  const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
  try {
    const { tensors } = await readPeftAdapter(sharedPath(`${FOLDER}${adapter}/adapter`));
    const { layout } = setup.trainables;
    const flat = new Float32Array(layout.total);
    layout.scatter(flat, new Map([...tensors].map(([name, { data }]) => [name, data as Float32Array])));
    trainer.executable.poison();
    trainer.setState(flat, {
      ...{ m: new Float32Array(layout.total), v: new Float32Array(layout.total) },
      // What a copy would be from the beginning of training: nothing.
      ...{ states: setup.trainables.initialStates(), copy: new Float32Array(setup.trainables.copy.total) },
    });
    await trainer.step(0, [batch(trainer.planned.choices.tokens)]);
    const gradients = await trainer.readGradients();
    return { metrics: (await trainer.collect())[0]!, gradients };
  } finally {
    trainer.destroy();
  }
}

async function compareGradients(
  actual: ReadonlyMap<string, Float32Array>,
  path: string,
): Promise<void> {
  const expected = await goldenArrays(`${FOLDER}${path}`);
  assertEquals(actual.size, expected.size);
  for (const [name, wanted] of expected) {
    const { l2, norm } = relative(actual.get(name.replace(PREFIX, ""))!, wanted);
    assert(l2 <= 2e-4 * norm, `the gradient of ${name} is off by ${l2 / norm}`);
  }
}

for (const family of FAMILIES) {
  sharedTest(`the model without its adapter teaches it as in PEFT [${family}]`, async () => {
    const { same_context: expected, N } = JSON.parse(
      await Deno.readTextFile(sharedPath(`${FOLDER}self/self.json`)),
    );
    const arrays = await goldenArrays(`${FOLDER}self/self.safetensors`);
    const [ids, labels] = ["ids", "labels"].map((name) => arrays.get(name) as Int32Array) as [
      Int32Array,
      Int32Array,
    ];
    const { metrics, gradients } = await stepWith(
      family,
      "self",
      {
        teacher: { model: "student" },
        objective: [{ loss: "forward-kl" }, { loss: "forward-kl", weight: 0, tokens: "all" }],
      },
      () => goldenBatch(ids, labels, ids.length / 2),
      128,
    );
    assertEquals(metrics.supervisedTokens, N);
    near(metrics.losses["forward-kl 1"]!, expected.loss, 2e-5, "the loss");
    near(metrics.losses["forward-kl 2"]!, expected.fkl_all_rows_mean, 2e-5, "the mean over all rows");
    near(metrics.gradientNorm, expected.grad_norm, 1e-4 * expected.grad_norm, "the gradient's norm");
    await compareGradients(gradients, "self/grads_same_context.safetensors");
  });
}
