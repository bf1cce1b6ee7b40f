/** Several teachers in whole training programs: against runs of one teacher, where what they are together is one of them. */
// @ts-types="../../types/std_assert.d.ts"
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertGreater,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { generationPlan, Generator } from "../../src/distill/generate/generator.ts";
import { Model, uploadWeights } from "../../src/distill/inputs/models.ts";
import { openTokenizer, prepareRun } from "../../src/distill/inputs/prepare.ts";
import { type SampleChoice, unneededLayers } from "../../src/distill/program/sample_choice.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { RecipeError } from "../../src/distill/recipe/parse.ts";
import type { Recipe, RecipeInput } from "../../src/distill/recipe/recipe.ts";
import type { RunEventBody, TeachersEvent } from "../../src/distill/run/events.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import type { EncodedSample } from "../../src/text/encode.ts";
import { packBatch } from "../../src/text/packing.ts";
import { modelTest, randomArray, relativeError, testGpu } from "../tensor/harness.ts";
import {
  type RecipeChanges,
  TINY_VOCABULARY,
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

/** Samples and which of two teachers each has. */
const CHOSEN: SampleChoice = new Map([[SAMPLES[0]!, 1], [SAMPLES[1]!, 0]]);

modelTest(
  "each sample learns from its own teacher, and a batch is run without the teachers that it has no need of",
  (gpu) =>
    withTiny(async (files) => {
      const { other, student } = await writeOthers(files);
      const objective = [{ loss: "cross-entropy", weight: 0.5 }, { loss: "forward-kl", weight: 0.7 }];
      const teachers = [{ model: files.teacher, name: "a" }, { model: other, name: "b" }];
      const recipe = (teacher: RecipeChanges["teacher"]) =>
        tinyRecipe(files, { teacher, student: { model: student }, objective });
      /** The gradient, the losses and what each teacher taught of a step over some batches. */
      const step = async (teacher: RecipeChanges["teacher"], batches: readonly EncodedSample[][]) => {
        using setup = await tinySetup(recipe(teacher));
        const planned = planTraining(setup, gpu.description);
        const trainer = await Trainer.create(gpu, setup, planned, { choice: CHOSEN });
        try {
          trainer.executable.poison();
          trainer.setState(randomArray(setup.trainables.layout.total, 1, 0.2));
          const { tokens } = planned.choices;
          await trainer.step(0, batches.map((samples) => packBatch(samples, tokens)));
          const gradients = await trainer.readGradients();
          const [metrics] = await trainer.collect();
          return { gradients, metrics: metrics!, teacher: await trainer.evaluateTeacher(SAMPLES) };
        } finally {
          trainer.destroy();
        }
      };
      const [first, second] = SAMPLES as [EncodedSample, EncodedSample];
      const together = await step({ combine: "tag", teachers }, [[first, second]]);
      const apart = await step({ combine: "best", teachers }, [[first], [second]]);
      const ofB = await step({ model: other }, [[first]]);
      const ofA = await step({ model: files.teacher }, [[second]]);
      const tokens = [second, first].map(({ supervised }) => supervised.subarray(1).reduce((a, b) => a + b));
      const share = tokens.map((n) => n / (tokens[0]! + tokens[1]!));
      for (const { gradients, metrics, teacher } of [together, apart]) {
        for (const [name, found] of gradients) {
          const [a, b] = [ofA, ofB].map((run) => run.gradients.get(name)!);
          const expected = found.map((_, i) => share[0]! * a![i]! + share[1]! * b![i]!);
          assert(
            relativeError(found, expected) < 1e-4,
            `gradient of ${name}: ${relativeError(found, expected)}`,
          );
        }
        assertEquals(metrics.teachers!.map(({ name, tokens }) => [name, tokens]), [["a", tokens[0]], [
          "b",
          tokens[1],
        ]]);
        assertAlmostEquals(metrics.teachers![0]!.loss, ofA.metrics.loss, 2e-5);
        assertAlmostEquals(metrics.teachers![1]!.loss, ofB.metrics.loss, 2e-5);
        assertAlmostEquals(metrics.loss, share[0]! * ofA.metrics.loss + share[1]! * ofB.metrics.loss, 2e-5);
        const losses = [ofA, ofB].map((run) => run.teacher.losses["cross-entropy"]!);
        assertGreater(Math.abs(losses[0]! - losses[1]!), 1e-3);
        assert(
          teacher.losses["cross-entropy"]! !== losses[0] && teacher.losses["cross-entropy"]! !== losses[1],
        );
      }
      // A batch of one sample runs the model of one teacher.
      using setup = await tinySetup(recipe({ combine: "tag", teachers }));
      const { blocks } = planTraining(setup, gpu.description).plan;
      const { dispatches } = blocks.get("microBatch")!;
      const named = teachers.map(({ name }, i) => ({ name, model: setup.teachers[i]! }));
      const left = unneededLayers({ members: [first] }, CHOSEN, named);
      const without = dispatches.filter(({ layer }) => layer !== undefined && left.has(layer));
      const layers = new Set(without.map(({ layer }) => layer));
      assertEquals(layers, new Set(["teacher a", "teacher a/layers.0"]));
      const ofOther = dispatches.filter(({ layer }) => layer?.startsWith("teacher b"));
      assertEquals(without.length, ofOther.length, "as many kernels of the one as of the other");
    }, SMALL),
);

/** Texts that a model wrote: nobody finds them as likely as it does. */
async function writtenBy(gpu: Gpu, path: string, count: number): Promise<string[]> {
  const model = await Model.open(path, { category: "weights" });
  const { tokenizer } = await openTokenizer(model);
  const planned = generationPlan(gpu.description, model, { sequences: 4, length: 48 });
  const weights = await uploadWeights(gpu, planned, [model]);
  const generator = await Generator.create(gpu, model, weights, { sequences: 4, length: 48 });
  try {
    const prompts = Array.from(
      { length: count },
      (_, i) => tokenizer.encode(["the cat", "a sun", "his mat", "and"][i % 4]!),
    );
    const options = { maxTokens: 24, temperature: 1, topK: 0, topP: 1, seed: 1, stopTokens: [] };
    const texts: string[] = [];
    for (let i = 0; i < prompts.length; i += 4) {
      const some = await generator.generate(prompts.slice(i, i + 4), { ...options, seed: i + 1 });
      texts.push(
        ...some.map(({ tokens }, k) =>
          tokenizer.decode([...prompts[i + k]!, ...tokens], { skipSpecial: true })
        ),
      );
    }
    return texts;
  } finally {
    generator.destroy();
    for (const buffer of weights.values()) buffer.destroy();
    model.close();
  }
}

Deno.test({
  name:
    "the best teacher of each sample is found once, and kept, live and cached; a resumed run goes on bit for bit",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: () =>
    withTiny(async (files) => {
      const gpu = await testGpu();
      const { other, student } = await writeOthers(files);
      const texts = [files.teacher, other].map((path) => writtenBy(gpu, path, 12));
      const rows = (await Promise.all(texts)).flatMap((own, teacher) =>
        own.map((text) => ({ text, teacher: ["teacher", "other"][teacher]! }))
      );
      const lines = (some: typeof rows) => some.map((row) => JSON.stringify(row) + "\n").join("");
      // One after another, so that batches have samples of both.
      const mixed = rows.map((_, i) => rows[i % 2 * 12 + Math.floor(i / 2)]!);
      await Deno.writeTextFile(files.train, lines(mixed.slice(0, 20)));
      await Deno.writeTextFile(files.heldOut, lines(mixed.slice(20)));
      const recipe = (teacher: RecipeChanges["teacher"]) =>
        tinyRecipe(files, {
          teacher: {
            teachers: [{ model: files.teacher }, { model: other }, { model: "student" }],
            ...teacher,
          },
          student: { model: student },
          objective: [
            { loss: "cross-entropy", weight: 0.9 },
            { loss: "soft-cross-entropy", weight: 0.1, tokens: "all" },
          ],
          train: { steps: 4, checkpointEvery: 2, evaluateEvery: 0, tokensPerMicroBatch: 128 },
        });
      const run = async (name: string, recipe: Recipe, stopAt?: number) => {
        const events: RunEventBody[] = [];
        const folder = `${files.folder}/${name}`;
        await runHere(recipe, folder, { control: (step) => step === stopAt ? "stop" : "run" }, events);
        if (stopAt) await runHere(recipe, folder, { resume: true }, events);
        const state = await Deno.readFile(`${folder}/checkpoints/step-000004/state.safetensors`);
        const found = events.flatMap((e) => (e.type === "teachers" ? [e] : []));
        const passes = events.filter((e) => e.type === "stage" && e.stage === "teachers").length;
        const steps = events.flatMap((e) => (e.type === "metrics" ? [e] : []));
        const loss = events.flatMap((
          e,
        ) => (e.type === "evaluation" && e.model === "teacher" ? [e.loss!] : []))[0]!;
        return { state, found, passes, steps, loss };
      };
      const whole = await run("whole", recipe({ combine: "best" }));
      const [{ teachers: found }] = whole.found as [TeachersEvent];
      assertEquals(found.map(({ name, samples }) => [name, samples]), [["teacher", 10], ["other", 10], [
        "student",
        0,
      ]]);
      for (const { loss, lossOfAll } of found.slice(0, 2)) assertGreater(lossOfAll! - loss!, 0.3);
      assertEquals(found[2]!.loss, null);
      assertEquals([whole.passes, whole.steps[0]!.teachers!.map(({ name }) => name)], [3, [
        "teacher",
        "other",
        "student",
      ]]);

      const parts = await run("parts", recipe({ combine: "best" }), 3);
      assertEquals([parts.passes, parts.found.length], [3, 1], "it is not measured again");
      assertEquals(parts.state, whole.state);
      assertEquals(parts.steps.at(-1)!.teachers, whole.steps.at(-1)!.teachers);

      // Rows that name the same teachers are the same run.
      const tagged = await run("tagged", recipe({ combine: "tag" }));
      assertEquals(tagged.passes, 0);
      assertEquals(tagged.state, whole.state);
      assertAlmostEquals(tagged.loss, whole.loss, 1e-5);

      // With every logit kept, what is stored of each sample's own teacher is that teacher: of all, of one beside one that is there and one
      // of which hidden states are stored, and of hidden states beside one that is there.
      const cache = { topK: TINY_VOCABULARY, precision: "f32" } as const;
      const hidden = { payload: "hidden", precision: "f32" } as const;
      const own = { model: "student" };
      const kinds: [RecipeChanges["teacher"], passes: number][] = [
        [{ combine: "best", cache }, 3],
        [{ combine: "tag", cache }, 3],
        [
          {
            combine: "best",
            teachers: [{ model: files.teacher }, { model: other, cache }, { ...own, cache: hidden }],
          },
          3,
        ],
        // What is there is measured with the student.
        [{ combine: "tag", teachers: [{ model: files.teacher, cache: hidden }, { model: other }, own] }, 0],
      ];
      for (const [i, [teacher, passes]] of kinds.entries()) {
        const cached = await run(`cached-${i}`, recipe(teacher), i === 2 ? 3 : undefined);
        assertEquals(cached.passes, passes);
        assertAlmostEquals(cached.loss, whole.loss, 1e-5);
        for (const [i, { losses, teachers }] of whole.steps.entries()) {
          const its = cached.steps[i]!;
          assertAlmostEquals(its.losses["soft-cross-entropy"]!, losses["soft-cross-entropy"]!, 1e-4);
          assertEquals(its.teachers!.map((t) => t.tokens), teachers!.map((t) => t.tokens));
          for (const [j, { loss }] of teachers!.entries()) {
            if (loss !== null) assertAlmostEquals(its.teachers![j]!.loss!, loss, 1e-4);
          }
        }
      }
    }, SMALL),
});

Deno.test("rows that name no teacher are told with their lines", () =>
  withTiny(async (files) => {
    const rows = [{ text: "the cat", teacher: "a" }, { text: "the cat sat" }, {
      text: "a mat",
      teacher: "c",
    }];
    await Deno.writeTextFile(files.train, rows.map((row) => JSON.stringify(row) + "\n").join(""));
    await Deno.writeTextFile(files.heldOut, JSON.stringify({ text: "a mat", teacher: "b" }) + "\n");
    const teachers = [{ model: files.teacher, name: "a" }, { model: files.teacher, name: "b" }];
    const recipe = tinyRecipe(files, {
      teacher: { combine: "tag", teachers },
      student: { model: files.teacher },
    });
    const error = await assertRejects(() => prepareRun(recipe), InputError);
    assertStringIncludes(error.message, "2 samples name no teacher that there is");
    assertStringIncludes(error.message, `${files.train}:2: names none`);
    assertStringIncludes(error.message, `${files.train}:3: names "c"`);
    assertStringIncludes(error.hint!, '"a", "b"');
  }, SMALL));

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
  const follows = { model: "student", self: mean } as const;
  const [part, hidden] = [{ topK: 4 }, { payload: "hidden" as const, folder: "c" }];
  refused({ combine: "mixture", teachers: [a, { ...b, cache: part }] }, "teacher.teachers.1.cache");
  refused({ combine: "tag", teachers: [a, b, follows], cache: part }, "teacher.teachers.2.self");
  refused({ combine: "tag", teachers: [a, { ...b, cache: part }, follows] }, "teacher.teachers.2.self");
  refused(
    { combine: "tag", teachers: [{ ...a, cache: part }, { ...b, cache: { topK: 8 } }] },
    "teacher.teachers.1.cache",
  );
  refused(
    { combine: "tag", teachers: [{ ...a, cache: part }, { ...b, cache: { samples: 8 } }] },
    "teacher.teachers.1.cache",
  );
  const server = { url: "https://host/v1", model: "m" };
  const served = { model: "server", server, cache: part };
  refused({ combine: "tag", teachers: [a, { model: "server", cache: part }] }, "teacher.teachers.1.server");
  refused({ combine: "tag", teachers: [a, { ...b, server }] }, "teacher.teachers.1.server");
  refused({ combine: "tag", teachers: [a, b], server }, "teacher.server");
  refused({ combine: "tag", teachers: [a, { model: "server", server }] }, "teacher.teachers.1.cache");
  refused(
    { combine: "tag", teachers: [a, { ...served, cache: { samples: 4 } }] },
    "teacher.teachers.1.cache",
  );
  refused({ combine: "mixture", teachers: [a, served] }, "of another Limbeck");
  refused({ combine: "product", teachers: [a, { model: "server", server }] }, "every logit");
  refused(
    { combine: "mixture", teachers: [a, { ...served, cache: { payload: "hidden" } }] },
    "teacher.teachers.1.cache.folder",
  );
  refused({ combine: "tag", teachers: [a, { ...served, quantize: "nf4" }] }, "teacher.teachers.1.quantize");
  refused({ combine: "tag", teachers: [a, { ...served, layers: [0] }] }, "teacher.teachers.1.layers");
  refused({ combine: "tag", teachers: [served, { ...served }] }, "teacher.teachers.1.name");
  const onPolicy = (teacher: RecipeInput["teacher"]) =>
    assertThrows(
      () => tinyRecipe(files, { teacher, student: { model: "s" }, train: { onPolicy: {} } }),
      RecipeError,
      "onPolicy",
    );
  onPolicy({ combine: "mixture", teachers: [a, { ...b, cache: hidden }] });
  onPolicy({ combine: "mixture", teachers: [a, { model: "server", server, cache: hidden }] });
  // What goes together: a student that follows itself, one that is there, and one behind a server.
  const { teacher } = tinyRecipe(files, {
    teacher: { combine: "mixture", teachers: [a, follows, { ...served, cache: hidden }] },
    student: { model: "s" },
  });
  assertEquals(teacher.teachers!.map(({ name }) => name), ["a", "student", "m"]);
  assertEquals(teacher.teachers![2]!.cache!.precision, "bf16");
  refused({ combine: "mixture", teachers: [a, { ...b, self: mean }] }, "teacher.teachers.1.self");
  refused(
    {
      combine: "mixture",
      teachers: [{ model: "student", self: mean, name: "x" }, { model: "student", self: mean }],
    },
    "teacher.teachers",
  );
});
