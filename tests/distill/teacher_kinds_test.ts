/**
 * What every kind of teacher promises: for each loss what the live model gives, within the kind's stated error; whatever the order of the
 * samples, packed or one by one; and after a stop and a resume in the middle the very same bits.
 */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import { prepareRun } from "../../src/distill/inputs/prepare.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { measureLosses, writeBatch } from "../../src/distill/program/metrics/measure.ts";
import { TeacherStream } from "../../src/distill/program/streamed/teacher_stream.ts";
import { uploadWeights } from "../../src/distill/inputs/models.ts";
import { memberName } from "../../src/distill/program/block_models.ts";
import { writeChoice } from "../../src/distill/program/sample_choice.ts";
import { shareScalars } from "../../src/distill/objective/several_targets.ts";
import { preparedOf, setupOf, TeacherTargets } from "../../src/distill/teacher/teacher_targets.ts";
import { cacheOf, keepsPart, servedTeachers } from "../../src/distill/recipe/teachers.ts";
import { LOSS_SUMS } from "../../src/distill/objective/loss_sets.ts";
import { FLAT } from "../../src/distill/trained/parameters.ts";
import { compile } from "../../src/tensor/executable.ts";
import type { Recipe, RecipeInput } from "../../src/distill/recipe/recipe.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { setUp } from "../../src/distill/run/set_up.ts";
import { openTeacherCache } from "../../src/distill/teacher/make_cache.ts";
import { Registry } from "../../src/registry/registry.ts";
import { modelTest } from "../tensor/harness.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import type { EncodedSample } from "../../src/text/encode.ts";
import { answerAs } from "./answered.ts";
import { LOGIT_LOSSES, TEACHER_KINDS, type TeacherKind } from "./teacher_kinds.ts";
import { heldMetrics, runHere } from "./tiny_run.ts";
import { type TinyFiles, tinyRecipe, withTiny } from "./tiny_model.ts";

/** All losses that a kind serves, and one at another temperature. */
function recipeFor(files: TinyFiles, kind: TeacherKind): Recipe {
  const { losses = LOGIT_LOSSES, temperature } = kind;
  return tinyRecipe(files, {
    teacher: teacherOf(kind, files),
    objective: [
      ...losses.map(({ id }) => ({ loss: id, weight: 0.1 })),
      ...(temperature === 1 ? [] : [{ loss: "forward-kl", weight: 0.1, temperature: 2 }]),
    ],
    train: { steps: 4, checkpointEvery: 2, evaluateEvery: 0 },
  });
}

function teacherOf({ teacher }: TeacherKind, files: TinyFiles): Partial<RecipeInput["teacher"]> {
  return typeof teacher === "function" ? teacher(files.teacher, `${files.folder}/caches`) : teacher;
}

/** What runs learn by, where a kind serves it. */
const SMALL = ["forward-kl", "reverse-kl"];

/** Held-out losses by name, of samples in whatever batches. */
type Measure = (samples: readonly EncodedSample[]) => Promise<Readonly<Record<string, number>>>;

/** Measures a recipe's losses with its teacher, whatever that is: the block that runs measure with, and nothing of what trains. */
async function withTeacher(
  gpu: Gpu,
  recipe: Recipe,
  model: string,
  folder: string,
  use: (measure: Measure, samples: readonly EncodedSample[]) => Promise<void>,
): Promise<void> {
  await answerAs(gpu, recipe, model);
  const prepared = await prepareRun(recipe);
  const setup = setUp(prepared, new Registry().addAll(builtins));
  const { plan, choices, streamed } = planTraining(setup, gpu.description);
  const nothing = { onSlice() {}, onFound() {}, onPlanned() {} };
  const sizes = { choices, texts: undefined, isMeasured: servedTeachers(recipe.teacher).length === 0 };
  const opened = await Promise.all(
    setup.teachers.keys().map((i) =>
      openTeacherCache(gpu, preparedOf(prepared, i), setupOf(setup, i), sizes, [folder], nothing)
    ),
  );
  const weights = await uploadWeights(gpu, plan, [...setup.teachers, setup.student]);
  const later = [...plan.blocks.keys()].filter((block) => !block.startsWith("teacher."));
  const executable = await compile(gpu, plan, { weights, later });
  const run = (block: string) => Promise.resolve(executable.run(block));
  const stream = streamed && new TeacherStream(executable, streamed, weights, run);
  const { teachers, combine } = recipe.teacher;
  const caches = opened.map((one) => one?.cache);
  // One after another; the two are the same.
  const choice = new Map(prepared.heldOut.map((sample, i) => [sample, i % 2]));
  const isPart = (i: number) => keepsPart(cacheOf(recipe.teacher, i));
  const names = teachers?.map(({ name }, i) => isPart(i) ? undefined : memberName(name!));
  const isOfOne = combine === "best" || combine === "tag";
  const source = names && caches.some(Boolean)
    ? new TeacherTargets(caches, isOfOne ? choice : undefined, names)
    : caches[0];
  const feed = source?.feed(choices.tokens);
  const { objective, trainables } = setup;
  try {
    await executable.ready("evaluate");
    executable.write(FLAT.parameters, (await trainables.initialValues(1)).trained);
    objective.setEvaluationScalars(executable);
    executable.setScalars(shareScalars([1, 3]));
    const measure = async (samples: readonly EncodedSample[]) => {
      const { losses } = await measureLosses(executable, samples, {
        ...{ block: "evaluate", state: LOSS_SUMS.evaluate, tokensPerBatch: choices.tokens },
        ...{ terms: objective.evaluation.terms, masks: objective.masks },
        ahead: stream && { most: stream.most, run: (batches) => stream.pass(batches) },
        write: async (batch, marked, i) => {
          writeBatch(executable, batch, marked);
          if (isOfOne) writeChoice(executable, batch, choice, marked, isPart);
          await feed?.fill(batch, marked);
          for (const [name, data] of feed?.inputs ?? []) {
            if (plan.storages.has(name)) executable.write(name, data);
          }
          stream?.select(i);
        },
      });
      return losses;
    };
    await use(measure, prepared.heldOut.slice(0, 4));
  } finally {
    stream?.close();
    executable.destroy();
    for (const buffer of weights.values()) buffer.destroy();
    for (const cache of caches) cache?.close();
    prepared.close();
  }
}

function assertWithin(
  found: Readonly<Record<string, number>>,
  expected: Readonly<Record<string, number>>,
  error: number,
) {
  let worst = 0;
  for (const [name, value] of Object.entries(found)) {
    if (!(name in expected)) continue;
    const off = Math.abs(value - expected[name]!) / Math.max(1, Math.abs(expected[name]!));
    worst = Math.max(worst, off);
    assert(off <= error, `${name}: ${value}, where the live model gives ${expected[name]}`);
  }
  return worst;
}

modelTest(
  "every kind of teacher gives what the live model gives, in any order, packed or one by one",
  async (gpu) => {
    await withTiny(async (files) => {
      let live: Readonly<Record<string, number>> = {};
      for (const kind of TEACHER_KINDS) {
        await withTeacher(
          gpu,
          recipeFor(files, kind),
          files.teacher,
          `${files.folder}/${kind.name}`,
          async (measure, samples) => {
            const packed = await measure(samples);
            if (kind.name === "live") live = packed;
            const losses = Object.keys(packed).filter((name) => name in live);
            assertEquals(
              (kind.losses ?? LOGIT_LOSSES).map(({ id }) => id).filter((id) => !losses.includes(id)),
              [],
            );
            const worst = assertWithin(packed, live, kind.error);
            console.log(`${kind.name}: ${losses.length} losses, at most ${worst.toExponential(1)} off`);
            assertWithin(await measure(samples.toReversed()), packed, 2e-6);
            let [sums, tokens]: [Record<string, number>, number] = [{}, 0];
            for (const sample of samples) {
              const own = await measure([sample]);
              const count = sample.supervised.reduce((a, b) => a + b, 0);
              tokens += count;
              for (const [name, value] of Object.entries(own)) sums[name] = (sums[name] ?? 0) + count * value;
            }
            sums = Object.fromEntries(losses.map((name) => [name, sums[name]! / tokens]));
            assertWithin(sums, packed, 2e-6);
          },
        );
      }
    });
  },
);

modelTest(
  "with every kind of teacher, a run that is stopped and resumed leaves the very same bits",
  async (gpu) => {
    await withTiny(async (files) => {
      for (const kind of TEACHER_KINDS.filter(({ resumesLikeAnother }) => !resumesLikeAnother)) {
        const { name, objective = SMALL } = kind;
        const recipe = tinyRecipe(files, {
          student: { model: "teacher", layers: [1] },
          teacher: teacherOf(kind, files),
          objective: objective.map((loss) => ({ loss, weight: 0.5 })),
          train: { steps: 4, accumulation: 2, checkpointEvery: 2, evaluateEvery: 0 },
        });
        await answerAs(gpu, recipe, files.teacher);
        const [whole, parts]: [RunEventBody[], RunEventBody[]] = [[], []];
        await runHere(recipe, `${files.folder}/whole ${name}`, {}, whole);
        const folder = `${files.folder}/parts ${name}`;
        await runHere(recipe, folder, { control: (step) => step === 2 ? "stop" : "run" }, parts);
        await runHere(recipe, folder, { resume: true }, parts);
        const steps = (events: RunEventBody[]) => heldMetrics(events).filter((row) => row.type === "metrics");
        assertEquals(steps(parts).length, 4);
        assertEquals(steps(parts), steps(whole), name);
        const adapter = (run: string) => Deno.readFile(`${run}/adapter/adapter_model.safetensors`);
        assertEquals(await adapter(folder), await adapter(`${files.folder}/whole ${name}`), name);
      }
    });
  },
);
