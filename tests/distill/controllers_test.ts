/** A controller in training: what it sets reaches the kernels of the next step, and is reported with it. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import type { RunEventBody } from "../../src/distill/events.ts";
import type { ObjectiveTermInput } from "../../src/distill/recipe.ts";
import { planTraining, type StepMetrics, Trainer } from "../../src/distill/trainer.ts";
import { InputError } from "../../src/errors.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { packBatch } from "../../src/text/packing.ts";
import { gpuTest } from "../tensor/harness.ts";
import { type TinyFiles, tinyRecipe, tinySample, tinySetup, withTiny } from "./tiny_model.ts";
import { runHere } from "./tiny_run.ts";

const ADAPTIVE: ObjectiveTermInput = {
  loss: "taid",
  options: { adaptive: true, t: 0.3, alpha: 0.4, beta: 0.5 },
};

/** Some steps on the same samples, with the numbers of each read before the next. */
async function train(gpu: Gpu, files: TinyFiles, objective: ObjectiveTermInput[]): Promise<StepMetrics[]> {
  using setup = await tinySetup(tinyRecipe(files, { objective, train: { steps: 6 } }));
  const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
  try {
    trainer.setState((await setup.trainables.initialValues(1)).trained);
    const batch = packBatch([tinySample(40, 35, 1), tinySample(20, 9, 2)], trainer.planned.frozen.tokens);
    const all: StepMetrics[] = [];
    for (let step = 0; step < 6; step++) {
      await trainer.step(step, [batch]);
      assertEquals(trainer.mustCollect, trainer.controllers.active);
      all.push(...await trainer.collect());
    }
    assert(!trainer.mustCollect);
    return all;
  } finally {
    trainer.destroy();
  }
}

gpuTest(
  "what a controller sets is what a schedule of the same values sets, from its start on",
  (gpu) =>
    withTiny(async (files) => {
      const steps = await train(gpu, files, [ADAPTIVE]);
      const t = steps.map(({ controlled }) => controlled["taid.t"]!);
      assertEquals(t.slice(0, 2), [0.3, 0.3]);
      assert(t.every((value, i) => i < 2 || value > t[i - 1]!), String(t));
      // Each step once more with t fixed; the steps before it have to be the same, so their t are set one by one.
      using setup = await tinySetup(tinyRecipe(files, {
        objective: [{ loss: "taid", schedule: { t: { from: 0, to: 1, steps: [0, 6] } } }],
        train: { steps: 6 },
      }));
      const { objective } = setup;
      const scheduled = objective.at.bind(objective);
      objective.at = (step) =>
        scheduled(step).map((term) => ({ ...term, options: { ...term.options, t: t[step]! } }));
      const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
      try {
        trainer.setState((await setup.trainables.initialValues(1)).trained);
        const batch = packBatch([tinySample(40, 35, 1), tinySample(20, 9, 2)], trainer.planned.frozen.tokens);
        for (let step = 0; step < 6; step++) await trainer.step(step, [batch]);
        const fixed = await trainer.collect();
        assertEquals(fixed.map(({ loss, gradientNorm }) => [loss, gradientNorm]), [
          ...steps.map(({ loss, gradientNorm }) => [loss, gradientNorm]),
        ]);
      } finally {
        trainer.destroy();
      }
    }),
);

Deno.test("a run reports what its controllers set, and measures held-out samples at the end of the course", () =>
  withTiny(async (files) => {
    const run = async (objective: ObjectiveTermInput[]) => {
      const events: RunEventBody[] = [];
      const recipe = tinyRecipe(files, { objective, train: { steps: 3 }, output: { merged: false } });
      await runHere(recipe, `${files.folder}/${crypto.randomUUID()}`, {}, events);
      return events;
    };
    const [adaptive, plain] = [await run([ADAPTIVE]), await run([{ loss: "soft-cross-entropy" }])];
    const set = adaptive.flatMap((e) => e.type === "metrics" ? [e.controlled] : []);
    assertEquals(set.length, 3);
    assertEquals(set[0], { "taid.t": 0.3 });
    assertEquals(plain.flatMap((e) => e.type === "metrics" ? [e.controlled] : []), [
      undefined,
      undefined,
      undefined,
    ]);
    // At t = 1 the target is the teacher.
    const before = (events: RunEventBody[], name: string) => {
      const found = events.find((e) => e.type === "evaluation" && e.model === "student" && e.step === 0);
      assert(found?.type === "evaluation");
      return found.losses[name]!;
    };
    assertAlmostEquals(before(adaptive, "taid"), before(plain, "soft-cross-entropy"), 1e-5);
  }));

Deno.test("a schedule of what a controller sets is refused by its path", () =>
  withTiny(async (files) => {
    const schedule = { t: { from: 0.4, to: 1, steps: [0, 5] as [number, number] } };
    const error = await assertRejects(
      () => tinySetup(tinyRecipe(files, { objective: [{ ...ADAPTIVE, schedule }] })),
      InputError,
      "has a schedule, and options that set it",
    );
    assertEquals(error.where, "recipe objective.0.schedule.t");
  }));
