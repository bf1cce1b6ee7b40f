/** Several teachers in whole training programs: against runs of one teacher, where what they are together is one of them. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertGreater, assertThrows } from "@std/assert";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { RecipeError } from "../../src/distill/recipe/parse.ts";
import type { Recipe, RecipeInput } from "../../src/distill/recipe/recipe.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { packBatch } from "../../src/text/packing.ts";
import { modelTest, relativeError } from "../tensor/harness.ts";
import {
  type RecipeChanges,
  type TinyFiles,
  type TinyModelOptions,
  tinyRecipe,
  tinySample,
  tinySetup,
  withTiny,
  writeTinyModel,
} from "./tiny_model.ts";
import { heldMetrics, runHere } from "./tiny_run.ts";

const SMALL: TinyModelOptions = { layers: 1 };
const SAMPLES = [tinySample(20, 12, 1), tinySample(30, 20, 2)];
/** One that looks at nothing, and two temperatures: a mixture needs a pass for each. */
const OBJECTIVE: RecipeChanges["objective"] = [
  { loss: "cross-entropy", weight: 0.5 },
  { loss: "forward-kl", weight: 0.3 },
  { loss: "reverse-kl", weight: 0.4, temperature: 2 },
];

/** A second teacher beside the first, of one vocabulary, and a student that is neither. */
async function writeOthers(files: TinyFiles): Promise<{ other: string; student: string }> {
  const [other, student] = ["other", "student"].map((name) => `${files.folder}/${name}`) as [string, string];
  await writeTinyModel(other, { ...SMALL, seed: 2, hiddenSize: 16 });
  await writeTinyModel(student, { ...SMALL, seed: 3 });
  return { other, student };
}

/** A few steps from the same beginning: what is measured of them, the last gradients, and held-out losses. */
async function follow(gpu: Gpu, recipe: Recipe, steps = 2) {
  using setup = await tinySetup(recipe);
  const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
  try {
    assertEquals(
      [...trainer.weights.values()].reduce((sum, b) => sum + b.size, 0),
      [...trainer.planned.plan.storages.values()].filter((s) => s.kind === "weight")
        .reduce((sum, s) => sum + s.bytes, 0),
    );
    trainer.executable.poison();
    trainer.setState((await setup.trainables.initialValues(1)).trained);
    const evaluated = (await trainer.evaluate(SAMPLES)).losses;
    const teacher = (await trainer.evaluateTeacher(SAMPLES)).losses;
    for (let step = 0; step < steps; step++) {
      await trainer.step(step, [packBatch(SAMPLES, trainer.planned.choices.tokens)]);
    }
    const gradients = await trainer.readGradients();
    const metrics = await trainer.collect();
    return { metrics, gradients, evaluated, teacher, passes: setup.objective.passes.length };
  } finally {
    trainer.destroy();
  }
}

type Followed = Awaited<ReturnType<typeof follow>>;

/** Requires that two runs are one but for rounding. */
function compare(actual: Followed, expected: Followed, what: string): void {
  for (const [i, { losses }] of expected.metrics.entries()) {
    for (const [name, value] of Object.entries(losses)) {
      assertAlmostEquals(actual.metrics[i]!.losses[name]!, value, 2e-5, `${what}: ${name} of step ${i}`);
    }
  }
  for (const [name, gradient] of expected.gradients) {
    const distance = relativeError(actual.gradients.get(name)!, gradient);
    assert(distance < 1e-4, `${what}: the gradient of ${name} differs by ${distance}`);
  }
  assertEquals(new Set(Object.keys(actual.evaluated)), new Set(Object.keys(expected.evaluated)));
  for (const [name, value] of Object.entries(expected.evaluated)) {
    assertAlmostEquals(actual.evaluated[name]!, value, 5e-5, `${what}: held-out ${name}`);
  }
  assertAlmostEquals(actual.teacher["cross-entropy"]!, expected.teacher["cross-entropy"]!, 2e-5, what);
}

modelTest(
  "several teachers of which one has all the weight are that one, at every temperature",
  (gpu) =>
    withTiny(async (files) => {
      const { other, student } = await writeOthers(files);
      const recipe = (teacher: Partial<RecipeInput["teacher"]>) =>
        tinyRecipe(files, { teacher, student: { model: student }, objective: OBJECTIVE });
      const [a, b] = [await follow(gpu, recipe({})), await follow(gpu, recipe({ model: other }))];
      assertGreater(Math.abs(a.metrics[0]!.losses["forward-kl"]! - b.metrics[0]!.losses["forward-kl"]!), 0.1);
      for (const combine of ["mixture", "product"] as const) {
        const several = (first: object, second: object) =>
          recipe({
            combine,
            teachers: [{ model: files.teacher, ...first }, { model: other, ...second }],
          });
        const ofFirst = await follow(gpu, several({ weight: 3 }, { weight: 0 }));
        compare(ofFirst, a, `${combine}, the first`);
        assertEquals(ofFirst.passes, combine === "mixture" ? 2 : 1);
        // The second takes over after the first step; held-out losses are those of the end.
        const course = (from: number, to: number) => ({
          schedule: { weight: { from, to, steps: [0, 1] as [number, number], shape: "constant" as const } },
        });
        const moving = await follow(gpu, several(course(1, 0), course(0, 1)));
        const reverse = ({ metrics }: Followed, step: number) => metrics[step]!.losses["reverse-kl"]!;
        assertAlmostEquals(reverse(moving, 0), reverse(a, 0), 2e-5);
        assertGreater(Math.abs(reverse(moving, 1) - reverse(a, 1)), 0.01);
        for (const [name, value] of Object.entries(b.evaluated)) {
          assertAlmostEquals(moving.evaluated[name]!, value, 5e-5, `${combine}: held-out ${name}`);
        }
        assertAlmostEquals(moving.teacher["cross-entropy"]!, b.teacher["cross-entropy"]!, 2e-5);
        // Two of the same are one, however they are weighed.
        const twice = recipe({
          combine,
          teachers: [{ model: files.teacher, name: "a", weight: 0.2 }, { model: files.teacher, name: "b" }],
        });
        compare(await follow(gpu, twice), a, `${combine} of one twice`);
        const mixed = await follow(gpu, several({}, {}));
        const [kl, ofA, ofB] = [mixed, a, b].map((r) => r.evaluated["forward-kl"]!) as [
          number,
          number,
          number,
        ];
        assert(kl < (ofA + ofB) / 2 - 1e-3, "KL is convex in both, so between them it is less than the mean");
      }
    }, SMALL),
);

Deno.test({
  name: "a run of a scheduled mixture with a mean of the student continues bit for bit",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: () =>
    withTiny(async (files) => {
      const { student } = await writeOthers(files);
      const recipe = tinyRecipe(files, {
        teacher: {
          combine: "mixture",
          teachers: [
            { model: files.teacher },
            {
              ...{ model: "student", self: { kind: "mean", decay: 0.5 } },
              schedule: { weight: { from: 0, to: 1, steps: [0, 6] } },
            },
          ],
        },
        student: { model: student },
        objective: OBJECTIVE,
        train: { steps: 6, checkpointEvery: 3, evaluateEvery: 3 },
        adapter: { dropout: 0.1 },
      });
      const run = async (name: string, stopAt?: number) => {
        const events: RunEventBody[] = [];
        const folder = `${files.folder}/${name}`;
        await runHere(recipe, folder, { control: (step) => step === stopAt ? "stop" : "run" }, events);
        if (stopAt) await runHere(recipe, folder, { resume: true }, events);
        return { events, state: await Deno.readFile(`${folder}/checkpoints/step-000006/state.safetensors`) };
      };
      const [whole, parts] = [await run("whole"), await run("parts", 4)];
      assertEquals(parts.state, whole.state);
      assertEquals(heldMetrics(parts.events).at(-1), heldMetrics(whole.events).at(-1));
    }, SMALL),
});

Deno.test("several teachers that make no sense are refused by the field", () => {
  const files = { folder: "", teacher: "a", train: "train.jsonl", heldOut: "heldout.jsonl" };
  const refused = (teacher: RecipeInput["teacher"], path: string) =>
    assertThrows(() => tinyRecipe(files, { teacher, student: { model: "s" } }), RecipeError, path);
  const [a, b] = [{ model: "a" }, { model: "b" }];
  const mean = { kind: "mean", decay: 0.9 } as const;
  refused({ teachers: [a, b] }, "teacher.combine");
  refused({ combine: "best" }, "teacher.combine");
  refused({ combine: "best", teachers: [a] }, "teacher.teachers");
  refused({ combine: "best", teachers: [a, a] }, "teacher.teachers.1.name");
  refused({ combine: "best", teachers: [a, { ...b, weight: 1 }] }, "teacher.teachers.1.weight");
  refused({ combine: "mixture", teachers: [{ ...a, weight: 0 }, { ...b, weight: 0 }] }, "teacher.teachers");
  const gap = (from: number, to: number, steps: [number, number]) => ({
    schedule: { weight: { from, to, steps } },
  });
  refused(
    { combine: "mixture", teachers: [{ ...a, ...gap(1, 0, [0, 4]) }, { ...b, ...gap(0, 1, [6, 8]) }] },
    "above 0 after 4 steps",
  );
  refused({ combine: "mixture", teachers: [a, b], cache: { topK: 4 } }, "teacher.cache");
  refused({ combine: "mixture", teachers: [a, b], stream: true }, "teacher.stream");
  refused({ combine: "mixture", teachers: [a, b], train: true }, "teacher.train");
  refused({ combine: "mixture", model: "c", teachers: [a, b] }, "teacher.model");
  refused({ combine: "best", teachers: [a, { model: "student", self: mean }] }, "teacher.teachers.1.self");
  refused({ combine: "mixture", teachers: [a, { ...b, self: mean }] }, "teacher.teachers.1.self");
  refused(
    {
      combine: "mixture",
      teachers: [{ model: "student", self: mean, name: "x" }, { model: "student", self: mean }],
    },
    "teacher.teachers",
  );
});
