/** A teacher that trains along, and losses that are balanced: gradients against runs in which the other part stands still. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertGreater, assertThrows } from "@std/assert";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { writeMerged } from "../../src/distill/export/exports.ts";
import type { Recipe } from "../../src/distill/recipe/recipe.ts";
import { RecipeError } from "../../src/distill/recipe/parse.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { type StepMetrics } from "../../src/distill/program/metrics/step_metrics.ts";
import { planTraining, type TrainingSetup } from "../../src/distill/program/plan_training.ts";
import { readPeftAdapter } from "../../src/formats/peft/peft.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { packBatch } from "../../src/text/packing.ts";
import { modelTest, randomArray } from "../tensor/harness.ts";
import { type RecipeChanges, tinyRecipe, tinySample, tinySetup, withTiny } from "./tiny_model.ts";
import { heldMetrics, runHere } from "./tiny_run.ts";

/** Rounding of f32 through a merged weight. */
const ROUNDING = 5e-5;
const SAMPLES = [tinySample(20, 12, 1), tinySample(30, 20, 2)];

type Values = ReadonlyMap<string, Float32Array>;

interface Step {
  readonly metrics: StepMetrics;
  readonly gradients: Values;
}

/** One step from given parameters. */
async function oneStep(gpu: Gpu, setup: TrainingSetup, values: Values): Promise<Step> {
  const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
  try {
    trainer.executable.poison();
    const flat = new Float32Array(setup.trainables.layout.total);
    setup.trainables.layout.scatter(flat, values);
    trainer.setState(flat);
    await trainer.step(0, [packBatch(SAMPLES, trainer.planned.choices.tokens)]);
    const gradients = await trainer.readGradients();
    return { metrics: (await trainer.collect())[0]!, gradients };
  } finally {
    trainer.destroy();
  }
}

function randomValues(setup: TrainingSetup): Map<string, Float32Array> {
  return new Map(
    setup.trainables.layout.parameters.map((p, i) => [p.name, randomArray(p.count, i + 1, 0.2)]),
  );
}

async function stepOf(gpu: Gpu, recipe: Recipe, given?: Values): Promise<Step> {
  using setup = await tinySetup(recipe);
  return await oneStep(gpu, setup, given ?? randomValues(setup));
}

function relative(actual: Float32Array, expected: ArrayLike<number>): number {
  const norm = Math.hypot(...Array.from(expected));
  assertGreater(norm, 0);
  return Math.hypot(...actual.map((a, i) => a - expected[i]!)) / norm;
}

const ONLINE: RecipeChanges = {
  teacher: { train: true, adapter: { rank: 3 } },
  objective: [
    { loss: "cross-entropy", weight: 0.5 },
    { loss: "entropy-gap-kl", weight: 0.7 },
    { loss: "cross-entropy", learner: "teacher", weight: 0.8 },
    { loss: "forward-kl", learner: "teacher", weight: 0.3 },
  ],
};

modelTest(
  "each model of an online run gets the gradient it has where the other stands still",
  (gpu) =>
    withTiny(async (files) => {
      // Whole, so that it is not rounded to 16 bits as a student with layers cut away is.
      const whole = { model: files.teacher };
      using setup = await tinySetup(tinyRecipe(files, { ...ONLINE, student: whole }));
      const values = randomValues(setup);
      const online = await oneStep(gpu, setup, values);
      assertEquals(Object.keys(online.metrics.losses), [
        "cross-entropy",
        "entropy-gap-kl",
        "teacher cross-entropy",
        "teacher forward-kl",
      ]);
      const isTeachers = (name: string) => name.startsWith("teacher.");
      const [ofTeacher, ofStudent] = [true, false].map((wanted) =>
        new Map([...values].filter(([name]) => isTeachers(name) === wanted))
      );
      const { teacherAdapter, adapter, teacher, student } = setup;
      const [fixedTeacher, fixedStudent] = [`${files.folder}/fixed-teacher`, `${files.folder}/fixed-student`];
      await writeMerged(
        fixedTeacher,
        teacher,
        { adapter: teacherAdapter! },
        await teacherAdapter!.namedValues(values, 1),
      );
      await writeMerged(fixedStudent, student, { adapter }, await adapter.namedValues(values, 1));

      const [ce, gap, teacherCe, teacherKl] = ONLINE.objective!;
      const plainStudent = await stepOf(
        gpu,
        tinyRecipe(files, {
          teacher: { model: fixedTeacher },
          student: whole,
          objective: [ce!, gap!],
        }),
        ofStudent,
      );
      const plainTeacher = await stepOf(
        gpu,
        tinyRecipe(files, {
          teacher: { model: fixedStudent },
          student: whole,
          objective: [teacherCe!, teacherKl!].map(({ learner: _, ...term }) => term),
          adapter: { rank: 3 },
        }),
        new Map([...ofTeacher!].map(([name, data]) => [name.slice("teacher.".length), data])),
      );
      for (const [name, actual] of online.gradients) {
        const expected = isTeachers(name)
          ? plainTeacher.gradients.get(name.slice("teacher.".length))!
          : plainStudent.gradients.get(name)!;
        const distance = relative(actual, expected);
        assert(distance < ROUNDING, `${name} differs by ${distance}`);
      }
      for (
        const [name, loss] of Object.entries({
          "cross-entropy": plainStudent.metrics.losses["cross-entropy"],
          "entropy-gap-kl": plainStudent.metrics.losses["entropy-gap-kl"],
          "teacher cross-entropy": plainTeacher.metrics.losses["cross-entropy"],
          "teacher forward-kl": plainTeacher.metrics.losses["forward-kl"],
        })
      ) assertAlmostEquals(online.metrics.losses[name]!, loss!, 2e-5, name);
    }),
);

modelTest(
  "a balanced loss has the size of the others together, up to its bound",
  (gpu) =>
    withTiny(async (files) => {
      const recipe = (objective: RecipeChanges["objective"]) => tinyRecipe(files, { objective });
      const others = [{ loss: "cross-entropy", weight: 0.5 }, { loss: "reverse-kl", weight: 0.1 }];
      const plain = await stepOf(gpu, recipe(others));
      const own = await stepOf(gpu, recipe([{ loss: "forward-kl" }]));
      const { "cross-entropy": ce, "reverse-kl": reverse } = plain.metrics.losses;
      const size = 0.5 * ce! + 0.1 * reverse!;
      const free = size / own.metrics.losses["forward-kl"]!;
      for (const [weight, max] of [[1, 100], [0.25, 100], [1, 0.01]] as const) {
        const balanced = await stepOf(
          gpu,
          recipe([...others, { loss: "forward-kl", weight, balance: { max } }]),
        );
        assertAlmostEquals(
          balanced.metrics.losses["forward-kl"]!,
          own.metrics.losses["forward-kl"]!,
          1e-6,
          "its own value is reported",
        );
        for (const [name, actual] of balanced.gradients) {
          const [a, b] = [plain.gradients.get(name)!, own.gradients.get(name)!];
          const expected = a.map((x, i) => x + weight * Math.min(free, max) * b[i]!);
          const distance = relative(actual, expected);
          assert(distance < ROUNDING, `${name} at weight ${weight}, at most ${max}: differs by ${distance}`);
        }
      }
    }),
);

Deno.test("an online run writes the teacher's adapter, measures both models, and continues bit for bit", () =>
  withTiny(async (files) => {
    const recipe = tinyRecipe(files, {
      ...ONLINE,
      train: { steps: 4, checkpointEvery: 2, evaluateEvery: 2 },
    });
    const whole: RunEventBody[] = [];
    const result = await runHere(recipe, `${files.folder}/whole`, {}, whole);
    assertEquals(result.paths.teacherAdapter, "teacher-adapter");
    const measured = whole.flatMap((e) => (e.type === "evaluation" && e.model === "teacher" ? [e.step] : []));
    assertEquals(measured, [0, 2, 4]);
    const { tensors } = await readPeftAdapter(`${files.folder}/whole/teacher-adapter`);
    assert([...tensors.keys()].every((name) => name.startsWith("model.layers.")));
    assert(
      [...tensors.values()].every((t) => Math.hypot(...(t.data as Float32Array)) > 0),
      "all were trained",
    );

    const parts: RunEventBody[] = [];
    await runHere(
      recipe,
      `${files.folder}/parts`,
      { control: (step) => (step === 3 ? "stop" : "run") },
      parts,
    );
    await runHere(recipe, `${files.folder}/parts`, { resume: true }, parts);
    const last = (events: readonly RunEventBody[]) =>
      heldMetrics(events).filter((row) => row.type === "metrics").at(-1);
    assertEquals(last(parts), last(whole));
    for (const name of ["adapter", "teacher-adapter"]) {
      const [a, b] = await Promise.all(
        ["whole", "parts"].map((run) =>
          Deno.readFile(`${files.folder}/${run}/${name}/adapter_model.safetensors`)
        ),
      );
      assertEquals(a, b, name);
    }
  }, { layers: 3 }));

Deno.test("learners and balance that make no sense are refused by their path", () => {
  const files = { folder: "", teacher: "teacher", train: "train.jsonl", heldOut: "heldout.jsonl" };
  const refused = (changes: RecipeChanges, path: string) =>
    assertThrows(() => tinyRecipe(files, changes), RecipeError, path);
  const ce = { loss: "cross-entropy" };
  refused({ objective: [ce, { ...ce, learner: "teacher" }] }, "objective.1.learner");
  refused({ teacher: { train: true }, objective: [ce] }, "teacher.train");
  refused({ teacher: { train: true }, objective: [{ ...ce, learner: "teacher" }] }, "objective");
  refused({ objective: [{ ...ce, balance: {} }] }, "objective.0.balance");
});
