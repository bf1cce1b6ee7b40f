/** Losses that count tokens of their own, trained and measured: each is the mean over those tokens in the whole window. */
// @ts-types="../../types/std_assert.d.ts"
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertGreater,
  assertRejects,
  assertThrows,
} from "@std/assert";
import { dataWarnings } from "../../src/distill/inputs/data_warnings.ts";
import { prepareRun } from "../../src/distill/inputs/prepare.ts";
import type { ObjectiveTermInput, Recipe } from "../../src/distill/recipe/recipe.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { type StepMetrics } from "../../src/distill/program/metrics/step_metrics.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { InputError } from "../../src/base/errors.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import type { EncodedSample } from "../../src/text/encode.ts";
import { packBatch, type PackedBatch } from "../../src/text/packing.ts";
import { modelTest, randomArray } from "../tensor/harness.ts";
import { type TinyFiles, tinyRecipe, tinyRows, tinySample, tinySetup, withTiny } from "./tiny_model.ts";

/** Numbers of one step from fixed parameters. */
interface Step {
  readonly metrics: StepMetrics;
  readonly gradients: ReadonlyMap<string, Float32Array>;
}

function recipeOf(files: TinyFiles, objective: ObjectiveTermInput[], tokensPerMicroBatch = 256): Recipe {
  return tinyRecipe(files, { objective, train: { tokensPerMicroBatch } });
}

async function withTrainer<T>(gpu: Gpu, recipe: Recipe, fn: (trainer: Trainer) => Promise<T>): Promise<T> {
  using setup = await tinySetup(recipe);
  const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
  try {
    trainer.executable.poison();
    reset(trainer);
    return await fn(trainer);
  } finally {
    trainer.destroy();
  }
}

/** Random parameters, B included, so that no gradient is zero. */
function reset(trainer: Trainer): void {
  const { layout } = trainer.setup.trainables;
  const flat = new Float32Array(layout.total);
  layout.scatter(
    flat,
    new Map(layout.parameters.map(({ name, count }, i) => [name, randomArray(count, i + 1, 0.3)])),
  );
  trainer.setState(flat);
}

async function stepOn(trainer: Trainer, window: readonly PackedBatch[]): Promise<Step> {
  reset(trainer);
  await trainer.step(0, window);
  const gradients = await trainer.readGradients();
  const [metrics] = await trainer.collect();
  assertEquals(metrics!.nonFinite, false);
  return { metrics: metrics!, gradients };
}

/** One step on a window of batches of these samples. */
async function oneStep(
  gpu: Gpu,
  files: TinyFiles,
  objective: ObjectiveTermInput[],
  ...window: (readonly EncodedSample[])[]
): Promise<Step> {
  const recipe = recipeOf(files, objective);
  return await withTrainer(gpu, recipe, (t) => stepOn(t, window.map((samples) => packBatch(samples, 256))));
}

/** Largest relative distance (L2) of a parameter's gradient from the sum of those of other steps. */
function distance(step: Step, ...parts: Step[]): number {
  return Math.max(...[...step.gradients].map(([name, actual]) => {
    const expected = actual.map((_, i) => parts.reduce((sum, p) => sum + p.gradients.get(name)![i]!, 0));
    const norm = Math.hypot(...expected);
    assertGreater(norm, 0, `${name} has a gradient`);
    return Math.hypot(...expected.map((e, i) => actual[i]! - e)) / norm;
  }));
}

function assertSum(step: Step, ...parts: Step[]): void {
  const worst = distance(step, ...parts);
  assert(worst <= ROUNDING, `gradients differ by ${worst}`);
  assertAlmostEquals(step.metrics.loss, parts.reduce((sum, p) => sum + p.metrics.loss, 0), 1e-5);
}

/** Rounding of sums of a few hundred f32 in another order, and of the kernel's sum of several losses. */
const ROUNDING = 1e-5;

const by = (origin: string, sample: EncodedSample): EncodedSample => ({ ...sample, origin });
const TEACHER = [by("teacher", tinySample(30, 25, 1)), by("teacher", tinySample(9, 3, 2))];
const STUDENT = [by("student", tinySample(40, 7, 3)), by("student", tinySample(12, 11, 4))];
const NOBODY = [tinySample(50, 20, 5), tinySample(17, 4, 6)];
const ALL = [TEACHER[0]!, NOBODY[0]!, STUDENT[0]!, NOBODY[1]!, TEACHER[1]!, STUDENT[1]!];

const PAIR: ObjectiveTermInput[] = [
  { loss: "skew-kl", weight: 1.5, source: "teacher" },
  { loss: "skew-reverse-kl", weight: 0.5, source: "student", options: { stopGradient: true } },
  { loss: "cross-entropy", weight: 0.25 },
  { loss: "forward-kl", weight: 0.75, temperature: 2, tokens: "all" },
];

/** Every token a target but the first. */
const whole = (s: EncodedSample): EncodedSample => ({
  ...s,
  supervised: s.supervised.map((_, i) => +(i > 0)),
});

modelTest(
  "losses over tokens of their own equal runs of each alone on those tokens",
  (gpu) =>
    withTiny(async (files) => {
      const plain = PAIR.map(({ source: _, tokens: __, ...term }) => term);
      const together = await oneStep(gpu, files, PAIR, ALL);
      const alone = [
        await oneStep(gpu, files, [plain[0]!], TEACHER),
        await oneStep(gpu, files, [plain[1]!], STUDENT),
        await oneStep(gpu, files, [plain[2]!], ALL),
        await oneStep(gpu, files, [plain[3]!], ALL.map(whole)),
      ];
      assertSum(together, ...alone);
      alone.forEach(({ metrics }, i) => {
        const [[name, value]] = Object.entries(metrics.losses) as [[string, number]];
        assertAlmostEquals(together.metrics.losses[name]!, value, 1e-5, `${i}: ${name}`);
      });
      assertEquals(together.metrics.supervisedTokens, 70);

      // The field's commonest mistake: all divided by one count.
      await withTrainer(gpu, recipeOf(files, PAIR), async (trainer) => {
        const { objective } = trainer.setup;
        const right = objective.setScalars.bind(objective);
        objective.setScalars = (executable, step, counts) =>
          right(executable, step, counts.map(() => counts[0]!));
        assertGreater(distance(await stepOn(trainer, [packBatch(ALL, 256)]), ...alone), 0.1);
      });
    }),
);

modelTest(
  "each mean is over the window, not over means of micro-batches of unequal counts",
  (gpu) =>
    withTiny(async (files) => {
      const groups = [[ALL[0]!, ALL[4]!], [ALL[1]!], [ALL[2]!, ALL[3]!, ALL[5]!]];
      const together = await oneStep(gpu, files, PAIR, ALL);
      const accumulated = await oneStep(gpu, files, PAIR, ...groups);
      assertSum(accumulated, together);
      for (const [name, value] of Object.entries(together.metrics.losses)) {
        assertAlmostEquals(accumulated.metrics.losses[name]!, value, 1e-5, name);
      }
      // One sample at a time: packing changes nothing.
      assertSum(await oneStep(gpu, files, PAIR, ...ALL.map((s) => [s])), together);
    }),
);

modelTest("a loss without tokens in a window is 0 and not reported", (gpu) =>
  withTiny(async (files) => {
    const some = [...TEACHER, ...NOBODY];
    const { metrics, ...step } = await oneStep(gpu, files, PAIR, some);
    assertEquals(Object.keys(metrics.losses), ["skew-kl", "cross-entropy", "forward-kl"]);
    assert(Number.isFinite(metrics.loss));
    assertSum({ metrics, ...step }, await oneStep(gpu, files, PAIR.filter((_, i) => i !== 1), some));
  }));

modelTest(
  "unshifted tokens are those one later than the supervised ones, up to the last",
  (gpu) =>
    withTiny(async (files) => {
      const samples = [tinySample(30, 12, 1), tinySample(9, 3, 2), tinySample(2, 1, 3)];
      const objective: ObjectiveTermInput[] = [{ loss: "forward-kl", tokens: "unshifted" }];
      const unshifted = await oneStep(gpu, files, objective, samples);
      // One more token, whatever it is, gives the last one something to predict.
      const later = samples.map((s): EncodedSample => ({
        ...s,
        ids: Int32Array.of(...s.ids, 9),
        supervised: Uint8Array.of(0, ...s.supervised),
      }));
      const plain = [{ loss: "forward-kl" }];
      assertSum(unshifted, await oneStep(gpu, files, plain, later));
      assertGreater(distance(unshifted, await oneStep(gpu, files, plain, samples)), 0.01);
    }),
);

modelTest("held-out losses are means over their own tokens too", (gpu) =>
  withTiny(async (files) => {
    const losses = await withTrainer(gpu, recipeOf(files, PAIR), async (trainer) => {
      const all = await trainer.evaluate(ALL);
      const parts = { teacher: await trainer.evaluate(TEACHER), student: await trainer.evaluate(STUDENT) };
      assertAlmostEquals(all.losses["skew-kl"]!, parts.teacher.losses["skew-kl"]!, 1e-6);
      assertAlmostEquals(all.losses["skew-reverse-kl"]!, parts.student.losses["skew-reverse-kl"]!, 1e-6);
      assertEquals([parts.teacher.losses["skew-reverse-kl"], all.tokens], [undefined, 70]);
      assertGreater(Math.abs(parts.teacher.losses["forward-kl"]! - all.losses["forward-kl"]!), 1e-3);
      assertEquals((await trainer.evaluateTeacher(ALL)).tokens, 70);
      return all.losses;
    });
    await withTrainer(gpu, recipeOf(files, [{ loss: "forward-kl", temperature: 2 }]), async (trainer) => {
      const unmasked = await trainer.evaluate(ALL);
      assertAlmostEquals(losses["cross-entropy"]!, unmasked.losses["cross-entropy"]!, 1e-6);
      assertAlmostEquals(losses["reverse-kl"]!, unmasked.losses["reverse-kl"]!, 1e-6);
      const all = await trainer.evaluate(ALL.map(whole));
      const key = "forward-kl at 2 of all tokens";
      assertAlmostEquals(losses[key]!, all.losses["forward-kl at 2"]!, 1e-6);
    });
  }));

Deno.test("losses that look at the label, balance, and sources that no row has are refused by their path", () =>
  withTiny(async (files) => {
    const setup = async (...terms: ObjectiveTermInput[]) => {
      (await tinySetup(recipeOf(files, terms)))[Symbol.dispose]();
    };
    for (const loss of ["cross-entropy", "decoupled-kd"]) {
      const error = await assertRejects(() => setup({ loss, tokens: "unshifted" }), InputError);
      assertEquals(error.where, "recipe objective.0.tokens");
      await setup({ loss, tokens: "all" });
    }
    await setup({ loss: "taid", tokens: "unshifted" }, { loss: "rank-correlation", tokens: "unshifted" });
    assertThrows(
      () => recipeOf(files, [{ loss: "forward-kl" }, { loss: "taid", balance: {}, tokens: "all" }]),
      InputError,
      "only works over the supervised tokens",
    );
    const recipe = recipeOf(files, [{ loss: "forward-kl", source: "student" }]);
    const missing = await assertRejects(() => prepareRun(recipe), InputError, 'source "student"');
    assertEquals(missing.where, "recipe objective.0.source");
    assert(missing.hint?.includes('add "source": "student"'), missing.hint);

    const rows = tinyRows(12, 3).trim().split("\n").map((line, i) =>
      JSON.stringify({ ...JSON.parse(line), source: ["student", "teacher", "web"][i % 3] })
    );
    await Deno.writeTextFile(files.train, rows.join("\n"));
    await Deno.writeTextFile(files.heldOut, rows.filter((row) => row.includes("teacher")).join("\n"));
    const other = recipeOf(files, [{ loss: "forward-kl", source: "me" }]);
    const named = await assertRejects(() => prepareRun(other), InputError);
    assertEquals(named.hint, 'Its rows name these sources: "student", "teacher", "web".');
    const prepared = await prepareRun(recipeOf(files, PAIR.slice(0, 2)));
    const warnings = dataWarnings(prepared);
    prepared.close();
    assertEquals(
      warnings.filter(({ code }) => code !== "held_out_seen").map(({ code, message }) => [code, message]),
      [
        [
          "samples_not_counted",
          "4 of 12 training samples train nothing: no loss counts samples of their source",
        ],
        [
          "source_not_held_out",
          'no held-out sample has the source "student", so the losses that count only such samples are not measured',
        ],
      ],
    );
  }));
