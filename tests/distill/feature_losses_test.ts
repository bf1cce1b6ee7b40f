/** Losses over inner values of the models in whole training steps and runs. */
// @ts-types="../../types/std_assert.d.ts"
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertGreater,
  assertLess,
  assertThrows,
} from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import { listCheckpoints } from "../../src/distill/checkpoint/checkpoint.ts";
import { setUp } from "../../src/distill/run/set_up.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import type { ObjectiveTermInput, Recipe } from "../../src/distill/recipe/recipe.ts";
import { sampleEnds } from "../../src/distill/program/fed/stream.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { type StepMetrics } from "../../src/distill/program/metrics/step_metrics.ts";
import { planTraining, type TrainingSetup } from "../../src/distill/program/plan_training.ts";
import { InputError, LimbeckError } from "../../src/base/errors.ts";
import { openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { DEFAULT_DEVICE } from "../../src/gpu/description.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import {
  CONTRACT_VERSION,
  defineFeatureLoss,
  type FeatureLossDefinition,
  noOptions,
  tensor,
} from "../../src/registry/contract.ts";
import { Registry } from "../../src/registry/registry.ts";
import { packBatch, type PackedBatch } from "../../src/text/packing.ts";
import { modelTest, randomArray, testGpu } from "../tensor/harness.ts";
import {
  type RecipeChanges,
  type TinyFiles,
  tinyRecipe,
  tinySample,
  tinySetup,
  withTiny,
  writeTinyModel,
} from "./tiny_model.ts";
import { heldMetrics, runHere } from "./tiny_run.ts";

const ROUNDING = 1e-5;
const SAMPLES = [tinySample(20, 12, 1), tinySample(30, 20, 2), tinySample(9, 4, 3)];

/** Every built-in one, on logits too. */
const ALL: readonly ObjectiveTermInput[] = [
  { loss: "cross-entropy", weight: 0.1 },
  { loss: "hidden-state-mse", weight: 0.5 },
  { loss: "hidden-state-cosine", weight: 2, options: { layers: "even", projector: "always" } },
  { loss: "attention-relation", weight: 3, options: { heads: 2, layers: [[0, 0], [1, 2]] } },
  { loss: "relation-distillation", weight: 4 },
  { loss: "relation-distillation", weight: 2, options: { span: "prompt", layers: [[0, 1]] } },
];

interface Step {
  readonly metrics: StepMetrics;
  readonly gradients: ReadonlyMap<string, Float32Array>;
}

/** Parameters that are not zero anywhere, so that no gradient is. */
function randomState(setup: TrainingSetup): Float32Array {
  const { layout } = setup.trainables;
  const flat = new Float32Array(layout.total);
  layout.scatter(flat, new Map(layout.parameters.map((p, i) => [p.name, randomArray(p.count, i + 1, 0.2)])));
  return flat;
}

async function withTrainer<T>(gpu: Gpu, recipe: Recipe, fn: (trainer: Trainer) => Promise<T>): Promise<T> {
  using setup = await tinySetup(recipe);
  const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
  try {
    trainer.executable.poison();
    return await fn(trainer);
  } finally {
    trainer.destroy();
  }
}

async function stepOn(
  trainer: Trainer,
  window: readonly PackedBatch[],
  state = randomState(trainer.setup),
): Promise<Step> {
  trainer.setState(state);
  await trainer.step(0, window);
  const gradients = await trainer.readGradients();
  const [metrics] = await trainer.collect();
  assertEquals(metrics!.nonFinite, false);
  return { metrics: metrics!, gradients };
}

function oneStep(gpu: Gpu, recipe: Recipe): Promise<Step> {
  return withTrainer(gpu, recipe, (t) => stepOn(t, [packBatch(SAMPLES, t.planned.choices.tokens)]));
}

/** Largest relative distance (L2) of a parameter's gradient. */
function distance(a: Step, b: Step): number {
  assertEquals([...a.gradients.keys()], [...b.gradients.keys()]);
  return Math.max(...[...b.gradients].map(([name, expected]) => {
    const actual = a.gradients.get(name)!;
    const norm = Math.hypot(...expected);
    assertGreater(norm, 0, `${name} has a gradient`);
    return Math.hypot(...expected.map((e, i) => actual[i]! - e)) / norm;
  }));
}

/** Files with a student of another width and depth than the teacher. */
function withStudent(fn: (files: TinyFiles, student: RecipeChanges["student"]) => Promise<void>) {
  return withTiny(async (files) => {
    const model = `${files.folder}/student`;
    await writeTinyModel(model, { layers: 2, hiddenSize: 48, seed: 5 });
    await fn(files, { model });
  });
}

const train = (settings: RecipeChanges["train"] = {}): RecipeChanges => ({
  train: { tokensPerMicroBatch: 64, ...settings },
});

modelTest(
  "a whole step with losses over inner values has the gradient that finite differences have",
  (gpu) =>
    withStudent(async (files, student) => {
      const recipe = tinyRecipe(files, { objective: [...ALL], student, ...train({ accumulation: 2 }) });
      await withTrainer(gpu, recipe, async (trainer) => {
        const { layout } = trainer.setup.trainables;
        const window = [packBatch(SAMPLES, 64), packBatch([tinySample(40, 11, 7)], 64)];
        const state = randomState(trainer.setup);
        const { gradients } = await stepOn(trainer, window, state);
        const lossAt = async (direction: Float32Array, h: number) =>
          (await stepOn(trainer, window, state.map((x, i) => x + h * direction[i]!))).metrics.loss;
        const names = layout.parameters.map((p) => p.name);
        assert(names.includes("loss.hidden-state-mse.projection.1.weight"), names.join());
        for (const [k, group] of [/^loss\./, /lora_A/, /lora_B/].entries()) {
          const direction = new Float32Array(layout.total);
          let [claimed, square] = [0, 0];
          for (const { name, offset, count } of layout.parameters.filter((p) => group.test(p.name))) {
            const own = randomArray(count, 50 + k);
            direction.set(own, offset);
            const gradient = gradients.get(name)!;
            claimed += gradient.reduce((sum, g, i) => sum + g * own[i]!, 0);
            square += gradient.reduce((sum, g) => sum + g * g, 0);
          }
          const slope = async (h: number) =>
            (await lossAt(direction, h) - await lossAt(direction, -h)) / (2 * h);
          const measured = (4 * await slope(0.005) - await slope(0.01)) / 3;
          const tolerance = 2e-3 * Math.sqrt(square) + 2e-4;
          assertLess(Math.abs(measured - claimed), tolerance, `${group}: ${claimed}, ${measured}`);
        }
      });
    }),
);

modelTest(
  "activation checkpointing gives the same bits with losses over inner values",
  (gpu) =>
    withTiny(async (files) => {
      const steps: Step[] = [];
      for (const activationCheckpointing of ["off", "on"] as const) {
        steps.push(
          await oneStep(
            gpu,
            tinyRecipe(files, { objective: [...ALL], ...train({ activationCheckpointing }) }),
          ),
        );
      }
      assertEquals(steps[1], steps[0]);
    }),
);

modelTest(
  "samples packed in a stream equal one sample at a time, and filler counts nothing",
  (gpu) =>
    withTiny(async (files) => {
      await withTrainer(gpu, tinyRecipe(files, { objective: [...ALL], ...train() }), async (trainer) => {
        const batch = packBatch(SAMPLES, 64);
        const packed = await stepOn(trainer, [batch]);
        const alone = await stepOn(trainer, SAMPLES.map((s) => packBatch([s], 64)));
        assertLess(distance(alone, packed), ROUNDING);
        for (const [name, loss] of Object.entries(packed.metrics.losses)) {
          assertGreater(loss, 1e-3, name);
          assertAlmostEquals(alone.metrics.losses[name]!, loss, ROUNDING * loss, name);
        }
        const filled = { ...batch, tokens: batch.tokens.map((t, i) => batch.segment[i]! < 0 ? 7 + i : t) };
        assertEquals(await stepOn(trainer, [filled]), packed);
        // The two-sided control: with the labels of one position gone, every loss is another.
        const fewer = { ...batch, label: batch.label.with(batch.label.findIndex((l) => l >= 0), -100) };
        const other = (await stepOn(trainer, [fewer])).metrics.losses;
        for (const [name, loss] of Object.entries(packed.metrics.losses)) {
          assertGreater(Math.abs(other[name]! - loss), 1e-4 * loss, name);
        }
      });
    }),
);

modelTest(
  "a loss over inner values counts the tokens that its term names",
  (gpu) =>
    withTiny(async (files) => {
      const step = (...terms: ObjectiveTermInput[]) =>
        oneStep(gpu, tinyRecipe(files, { objective: [{ loss: "cross-entropy" }, ...terms], ...train() }));
      const loss = "hidden-state-mse";
      const { metrics } = await step({ loss }, { loss, tokens: "all" }, {
        loss,
        tokens: "all",
        source: "nobody",
      });
      assertEquals(Object.keys(metrics.losses), ["cross-entropy", `${loss} 1`, `${loss} 2`]);
      const [supervised, all] = [1, 2].map((n) => metrics.losses[`${loss} ${n}`]!);
      assertGreater(Math.abs(supervised! - all!), 1e-3);
      // The mean over all positions but the last of each sample, as if all were learnt.
      const learnt = SAMPLES.map((s) => ({ ...s, supervised: s.supervised.map(() => 1) }));
      await withTrainer(gpu, tinyRecipe(files, { objective: [{ loss }], ...train() }), async (trainer) => {
        const { metrics: { losses } } = await stepOn(trainer, [packBatch(learnt, 64)]);
        assertAlmostEquals(all!, losses[loss]!, ROUNDING);
      });
    }),
);

Deno.test({
  name: "both kernel families give the same step with losses over inner values",
  sanitizeResources: false,
  sanitizeOps: false,
  fn: () =>
    withStudent(async (files, student) => {
      const gpus = [await testGpu("subgroup8"), await testGpu("tiled")];
      if (gpus[0]!.description.subgroupSize !== 8) return console.log("skip: no subgroups of 8 lanes here");
      const recipe = tinyRecipe(files, { objective: [...ALL], student, ...train() });
      const [a, b] = [await oneStep(gpus[0]!, recipe), await oneStep(gpus[1]!, recipe)];
      assertLess(distance(a, b), 2 * ROUNDING);
    }),
});

modelTest("nothing flows into a teacher that trains along", (gpu) =>
  withTiny(async (files) => {
    const step = async (...terms: ObjectiveTermInput[]) => {
      const objective = [
        { loss: "cross-entropy" },
        { loss: "cross-entropy", learner: "teacher" as const },
        ...terms,
      ];
      return await oneStep(gpu, tinyRecipe(files, { objective, teacher: { train: true }, ...train() }));
    };
    const [without, withLosses] = [await step(), await step(...ALL.slice(1, 2), ...ALL.slice(3))];
    let moved = 0;
    for (const [name, gradient] of without.gradients) {
      const same = distance({ ...without, gradients: new Map([[name, withLosses.gradients.get(name)!]]) }, {
        ...without,
        gradients: new Map([[name, gradient]]),
      });
      if (name.startsWith("teacher.")) assertEquals(same, 0, name);
      else moved += Number(same > 1e-3);
    }
    assertGreater(moved, 0);
  }));

modelTest(
  "a balanced loss over inner values gets the size of the others, which count those without balance",
  (gpu) =>
    withTiny(async (files) => {
      const step = (weight: number, rest: Partial<ObjectiveTermInput> = {}) => {
        const objective = [
          { loss: "cross-entropy", weight: 0.3 },
          { loss: "relation-distillation", weight: 2 },
          { loss: "hidden-state-mse", weight, ...rest },
        ];
        return oneStep(gpu, tinyRecipe(files, { objective, ...train() }));
      };
      const { metrics: { losses } } = await step(1);
      const reference = 0.3 * losses["cross-entropy"]! + 2 * losses["relation-distillation"]!;
      const weight = 0.7 * reference / losses["hidden-state-mse"]!;
      const expected = await step(weight);
      assertLess(distance(await step(0.7, { balance: { max: 1e6 } }), expected), ROUNDING);
      assertGreater(distance(await step(0.7), expected), 1e-2);
      // A balanced loss over logits has them in its reference too.
      const logits = (weight: number, balance?: { max: number }) => {
        const objective = [
          { loss: "relation-distillation", weight: 2 },
          { loss: "cross-entropy", weight, ...(balance ? { balance } : {}) },
        ];
        return oneStep(gpu, tinyRecipe(files, { objective, ...train() }));
      };
      const factor = 2 * losses["relation-distillation"]! / losses["cross-entropy"]!;
      assertLess(distance(await logits(1, { max: 1e6 }), await logits(factor)), ROUNDING);
    }),
);

modelTest(
  "equal models differ in nothing, and an objective may be of inner values alone",
  (gpu) =>
    withTiny(async (files) => {
      const objective = ALL.slice(1).map((t) => ({ ...t, options: { ...t.options, layers: "auto" } }));
      const recipe = tinyRecipe(files, { objective, student: { model: "teacher" }, ...train() });
      await withTrainer(gpu, recipe, async (trainer) => {
        const { trained } = await trainer.setup.trainables.initialValues(1);
        trainer.setState(trained);
        const { losses } = await trainer.evaluate(SAMPLES);
        for (const { term } of trainer.setup.features) {
          assertLess(Math.abs(losses[term.name]!), 2e-6, term.name);
        }
        const { metrics } = await stepOn(trainer, [packBatch(SAMPLES, 64)]);
        assertEquals(
          Object.keys(metrics.losses),
          trainer.setup.features.map((f) => f.term.name),
        );
        assertGreater(metrics.loss, 0.01);
        // What evaluation says of the same samples in the same state is what the step said.
        trainer.setState(randomState(trainer.setup));
        const again = (await trainer.evaluate(SAMPLES)).losses;
        for (const [name, loss] of Object.entries(metrics.losses)) {
          assertAlmostEquals(again[name]!, loss, ROUNDING * loss, name);
        }
      });
    }),
);

/** Everything in the newest checkpoint, by tensor name. */
async function newestState(folder: string): Promise<Map<string, Float32Array>> {
  const { path } = (await listCheckpoints(`${folder}/checkpoints`)).at(-1)!;
  const file = await SafetensorsFile.open(await openFile(`${path}/state.safetensors`));
  const state = new Map<string, Float32Array>();
  for (const name of file.tensors.keys()) state.set(name, (await file.read(name)).data as Float32Array);
  file.close();
  return state;
}

Deno.test("projections are trained, resumed bit for bit, and left out of what is exported", () =>
  withStudent(async (files, student) => {
    const objective = [
      { loss: "cross-entropy", weight: 0.5 },
      {
        loss: "hidden-state-mse",
        schedule: { weight: { from: 1, to: 0.5, steps: [1, 4] as [number, number] } },
      },
    ];
    const recipe = tinyRecipe(files, {
      ...{ objective, student, output: { merged: false } },
      train: { steps: 6, checkpointEvery: 3, evaluateEvery: 3 },
    });
    const [whole, events]: [string, RunEventBody[]] = [`${files.folder}/whole`, []];
    await runHere(recipe, whole, {}, events);
    const [halves, said]: [string, RunEventBody[]] = [`${files.folder}/halves`, []];
    const control = (step: number) => step === 4 ? "stop" as const : "run" as const;
    assertEquals((await runHere(recipe, halves, { control }, said)).status, "paused");
    assertEquals((await runHere(recipe, halves, { resume: true }, said)).steps, 6);
    assertEquals(heldMetrics(said), heldMetrics(events));
    const state = await newestState(whole);
    assertEquals(await newestState(halves), state);

    const name = "loss.hidden-state-mse.projection.0.weight";
    using setup = await tinySetup(recipe);
    const begun = (await setup.features[0]!.initialValues(recipe.train.seed)).get(name)!;
    assertAlmostEquals(Math.hypot(...begun) / Math.sqrt(begun.length), 48 ** -0.5, 0.01);
    const trained = state.get(`parameters.${name}`)!;
    assertGreater(Math.hypot(...trained.map((x, i) => x - begun[i]!)), 0.01);
    const adapter = await SafetensorsFile.open(await openFile(`${whole}/adapter/adapter_model.safetensors`));
    assertEquals([...adapter.tensors.keys()].filter((key) => key.includes("projection")), []);
    adapter.close();

    const losses = events.flatMap((e) => (e.type === "metrics" ? [e] : []));
    losses.forEach(({ loss, losses, step }) => {
      const weight = [1, 1, 1 - 0.5 / 3, 1 - 1 / 3, 0.5, 0.5][step - 1]!;
      assertAlmostEquals(loss!, 0.5 * losses["cross-entropy"]! + weight * losses["hidden-state-mse"]!, 1e-5);
    });
    const evaluations = events.filter((e) => e.type === "evaluation" && e.model === "student");
    const held = evaluations.map((e) => (e.type === "evaluation" ? e.losses["hidden-state-mse"]! : NaN));
    assertEquals(held.length, 3);
    assertLess(held.at(-1)!, held[0]!);
  }));

Deno.test("what has no meaning for a loss over inner values is refused by name", () =>
  withTiny(async (files) => {
    const refusedWith = async (
      rest: RecipeChanges["teacher"],
      term: ObjectiveTermInput,
      ...messages: string[]
    ) => {
      const teacher = { train: term.learner === "teacher", ...rest };
      const recipe = tinyRecipe(files, { teacher, objective: [{ loss: "cross-entropy" }, term] });
      let error: unknown;
      try {
        (await tinySetup(recipe))[Symbol.dispose]();
      } catch (thrown) {
        error = thrown;
      }
      assert(error instanceof InputError, `${JSON.stringify(term)}: ${error}`);
      for (const message of messages) {
        assert(`${error.message} ${error.hint}`.includes(message), `${error.message} ${error.hint}`);
      }
    };
    const refused = (term: ObjectiveTermInput, ...messages: string[]) => refusedWith({}, term, ...messages);
    const loss = "hidden-state-mse";
    await refusedWith(
      { cache: { topK: 8 } },
      { loss },
      "with teacher.cache",
      "no inner values",
      "objective.1",
    );
    const steps: [number, number] = [0, 4];
    await refused({ loss, temperature: 2 }, "recipe objective.1.temperature", "no logits");
    await refused({ loss, squareTemperature: true }, "recipe objective.1.squareTemperature");
    const temperature = { from: 1, to: 2, steps };
    await refused({ loss, schedule: { temperature } }, "recipe objective.1.schedule.temperature");
    await refused({ loss, schedule: { layers: temperature } }, "cannot change", "these can: weight");
    await refused({ loss, learner: "teacher" }, "recipe objective.1.learner", "only the student");
    const missing = { loss, options: { layers: [[1, 9]] } };
    await refused(
      missing,
      '"model.layers.9.output" of the teacher',
      "recipe objective.1",
      "model.layers.2.values",
    );
    await refused({ loss, options: { layers: [[2, 1]] } }, '"model.layers.2.output" of the student');
    const heads = { loss: "attention-relation", options: { heads: 3 } };
    await refused(
      heads,
      "3 relation heads do not divide the 32 queries of the student",
      "recipe objective.1",
    );
  }));

Deno.test("a program that gives no loss of each position, or asks for what it did not name, is told as a plugin's", () =>
  withTiny(async (files) => {
    const recipe = tinyRecipe(files, { objective: [{ loss: "test/feature" }] });
    using opened = await tinySetup(tinyRecipe(files));
    const planWith = (program: FeatureLossDefinition["program"]) => {
      const loss = defineFeatureLoss({
        ...{ id: "test/feature", version: "1.0.0", contract: CONTRACT_VERSION, options: noOptions },
        taps: () => ({ student: ["model.layers.0.output"], teacher: [] }),
        program,
      });
      return planTraining(
        setUp({ ...opened, recipe }, new Registry().addAll(builtins).add(loss)),
        DEFAULT_DEVICE,
      );
    };
    const refused = (program: FeatureLossDefinition["program"], message: string) => {
      const error = assertThrows(() => planWith(program), LimbeckError, message);
      assert(error.message.includes("test/feature"), error.message);
    };
    refused(({ student }) => student("model.layers.0.output"), "must return the loss of each position");
    refused(({ student }) => student("embeddings"), "taps() does not name");
    refused(({ parameter }) => parameter("w"), 'no parameter "w"');
    refused(
      ({ student }) => tensor.add(student("model.layers.0.output"), student("model.layers.0.output")),
      "f32[64",
    );
    refused(() => {
      throw new Error("not today");
    }, "not today");
  }));

Deno.test("sampleEnds() ends samples where the next begins, and filler after itself", () => {
  const { kvStart } = packBatch([tinySample(3, 1, 1), tinySample(2, 1, 2), tinySample(1, 0, 3)], 8);
  assertEquals([...sampleEnds(kvStart)], [3, 3, 3, 5, 5, 6, 7, 8]);
});
