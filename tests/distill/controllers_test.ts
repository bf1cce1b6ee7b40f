/** A controller in training: what it sets reaches the kernels of the next step, and is reported with it. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { Objective } from "../../src/distill/objective/objective.ts";
import type { ObjectiveTermInput } from "../../src/distill/recipe/recipe.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { type StepMetrics } from "../../src/distill/program/metrics/step_metrics.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { InputError } from "../../src/base/errors.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { Registry } from "../../src/registry/registry.ts";
import type { EncodedSample } from "../../src/text/encode.ts";
import { packBatch } from "../../src/text/packing.ts";
import { modelTest } from "../tensor/harness.ts";
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
    const batch = packBatch([tinySample(40, 35, 1), tinySample(20, 9, 2)], trainer.planned.choices.tokens);
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

modelTest(
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
        const batch = packBatch(
          [tinySample(40, 35, 1), tinySample(20, 9, 2)],
          trainer.planned.choices.tokens,
        );
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

modelTest(
  "a controller measures beside the loss, over its tokens and at temperature 1",
  (gpu) =>
    withTiny(async (files) => {
      const by = (origin: string, sample: EncodedSample) => ({ ...sample, origin });
      const own = [by("teacher", tinySample(30, 25, 1)), by("teacher", tinySample(9, 3, 2))];
      const samples = [own[0]!, by("student", tinySample(20, 12, 3)), own[1]!];
      const lambda = 0.9;
      const recipe = tinyRecipe(files, {
        objective: [
          { loss: "skew-kl", source: "teacher", temperature: 3, options: { lambda, curriculum: true } },
          { loss: "cross-entropy", source: "teacher", weight: 0.1 },
          { loss: "forward-kl", weight: 0.1 },
        ],
        train: { steps: 6, learningRate: 0.05 },
      });
      using setup = await tinySetup(recipe);
      const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
      try {
        trainer.setState((await setup.trainables.initialValues(1)).trained);
        const likelihood = (loss: number | undefined) => Math.exp(-loss!);
        const teacher = likelihood((await trainer.evaluateTeacher(own)).losses["cross-entropy"]);
        const batch = packBatch(samples, trainer.planned.choices.tokens);
        let [expected, first] = [lambda, undefined as number | undefined];
        for (let step = 0; step < 6; step++) {
          await trainer.step(step, [batch]);
          const [{ controlled, losses }] = await trainer.collect() as [StepMetrics];
          assertEquals(Object.keys(losses), ["skew-kl", "cross-entropy", "forward-kl"]);
          assertAlmostEquals(controlled["skew-kl.lambda"]!, expected, 1e-3, `step ${step}`);
          const gap = teacher - likelihood(losses["cross-entropy"]);
          if (first === undefined) {
            // What it remembers of the first step is the difference of the two measured probabilities.
            const { first: found } = trainer.controllers.state()["skew-kl"]!;
            assertAlmostEquals(found!, gap, 1e-4 * Math.abs(gap));
            const elsewhere = likelihood((await trainer.evaluateTeacher(samples)).losses["cross-entropy"]);
            assert(Math.abs(elsewhere - teacher) > 1e-2 * Math.abs(gap), "other tokens would do as well");
            first = gap;
          }
          expected = Math.min(lambda, Math.max(0.01, 1 - (1 - lambda) * first / (gap + 1e-5)));
        }
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

Deno.test("a controller that measures the teacher at the label is refused with a cache of the teacher", () => {
  const registry = new Registry().addAll(builtins);
  const cache = { topK: 4, seed: 1, precision: "f16" as const };
  const make = (options: Record<string, unknown>) =>
    Objective.of(registry, [{ loss: "skew-kl", weight: 1, temperature: 1, options }], 64, { cache });
  make({});
  const error = assertThrows(() => make({ curriculum: true }), InputError, "cannot measure in training");
  assertEquals(error.where, "recipe objective.0.options");
  const taid = [{ loss: "taid", weight: 1, temperature: 1, options: { adaptive: true } }];
  Objective.of(registry, taid, 64, { cache });
});

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
