/** Training with the products of frozen weights in f16. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { DeviceError } from "../../src/base/errors.ts";
import { DEFAULT_DEVICE } from "../../src/gpu/description.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import type { Plan } from "../../src/tensor/plan.ts";
import { modelTest, testGpu } from "../tensor/harness.ts";
import { openTiny, tinyRecipe, withTiny } from "./tiny_model.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { runHere } from "./tiny_run.ts";

/** How many products of a block have operands that are rounded, by orientation, and how many have not. */
function products(plan: Plan, block: string) {
  const count = (pattern: RegExp) =>
    plan.blocks.get(block)!.dispatches.filter(({ kernel }) => pattern.test(kernel)).length;
  return {
    forward: count(/^matmul NT .* in f16 /),
    backward: count(/^matmul NN .* in f16 /),
    weights: count(/^matmul TN .* in f16 /),
    exact: count(/^matmul [NT]{2} (?!.* in f16 )/),
  };
}

Deno.test("train.compute: f16 rounds what frozen layers multiply, forward and backward, and nothing else", async () => {
  await withTiny(async (files) => {
    using setup = await openTiny(tinyRecipe(files, { train: { compute: "f16" } }));
    const { plan, choices } = planTraining(setup, DEFAULT_DEVICE);
    const { forward, backward, weights, exact } = products(plan, "microBatch");
    // Seven linear layers in each of the teacher's three layers and the student's two.
    assertEquals(forward, 7 * (3 + 2));
    // Nothing is trained below the first three of the student, so no gradient goes through them.
    assertEquals(backward, 7 * 2 - 3);
    assertEquals(weights, 0);
    // The head's three products a chunk, and A and B of each of the student's modules, forward and backward.
    assert(exact > 14 * 4, `${exact}`);
    assertEquals(products(plan, "evaluate").forward, 7 * (3 + 2));
    assertEquals(products(plan, "evaluateTeacher").forward, 7 * 3);
    const names = Object.keys(choices.kernels!).filter((key) => key.endsWith(" in f16"));
    assert(
      names.some((key) => key.startsWith("matmul NT")) && names.some((key) => key.startsWith("matmul NN")),
    );
    assertThrows(
      () => planTraining(setup, { ...DEFAULT_DEVICE, shaderF16: false }),
      DeviceError,
      "need the feature shader-f16",
    );
  });
});

Deno.test("train.compute: f32 is what a recipe without it plans", async () => {
  await withTiny(async (files) => {
    const texts = async (train: { compute?: "f32" }) => {
      using setup = await openTiny(tinyRecipe(files, { train }));
      const { plan } = planTraining(setup, DEFAULT_DEVICE);
      return [...plan.blocks.values()].flatMap(({ dispatches }) => dispatches.map(({ wgsl }) => wgsl));
    };
    assertEquals(await texts({ compute: "f32" }), await texts({}));
  });
});

modelTest("a run in f16 stays beside the run in f32, and is resumed bit for bit", async () => {
  const gpu = await testGpu();
  if (!gpu.description.shaderF16) {
    console.log("skip: this device has no shader-f16");
    return;
  }
  await withTiny(async (files) => {
    const train = { steps: 4, checkpointEvery: 2, evaluateEvery: 0 };
    const run = async (name: string, changes: { compute?: "f16" }, stopAfter?: number) => {
      const folder = `${files.folder}/${name}`;
      const recipe = tinyRecipe(files, { train: { ...train, ...changes } });
      const events: RunEventBody[] = [];
      if (stopAfter !== undefined) {
        await runHere(recipe, folder, { control: (step) => step >= stopAfter ? "stop" : "run" });
      }
      await runHere(recipe, folder, { resume: stopAfter !== undefined }, events);
      const losses = events.flatMap((event) => event.type === "metrics" ? [event.loss!] : []);
      return { losses, adapter: await Deno.readFile(`${folder}/adapter/adapter_model.safetensors`) };
    };
    const exact = await run("f32", {});
    const rounded = await run("f16", { compute: "f16" });
    assertEquals([exact.losses.length, rounded.losses.length], [4, 4]);
    rounded.losses.forEach((loss, i) => {
      const wanted = exact.losses[i]!;
      assert(Math.abs(loss - wanted) < 2e-3 * wanted, `step ${i + 1}: ${loss}, ${wanted} in f32`);
    });
    assertNotEquals(rounded.losses, exact.losses);
    const resumed = await run("resumed", { compute: "f16" }, 2);
    assertEquals(resumed.losses, rounded.losses.slice(2));
    assertEquals(resumed.adapter, rounded.adapter);
  });
});
