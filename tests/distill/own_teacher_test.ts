/** A student that teaches itself: without its adapter, with a copy of it some steps back, with a mean of it. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertGreater, assertThrows } from "@std/assert";
import { copyKeeps } from "../../src/distill/program/own_teacher.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { RecipeError } from "../../src/distill/recipe/parse.ts";
import type { Recipe, SelfRecipe } from "../../src/distill/recipe/recipe.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { DEFAULT_DEVICE } from "../../src/gpu/description.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { packBatch } from "../../src/text/packing.ts";
import { maxDifference, modelTest } from "../tensor/harness.ts";
import {
  type RecipeChanges,
  type TinyFiles,
  type TinyModelOptions,
  tinyRecipe,
  tinySample,
  tinySetup,
  withTiny,
} from "./tiny_model.ts";
import { heldMetrics, runHere } from "./tiny_run.ts";

const SMALL: TinyModelOptions = { layers: 1 };
const SAMPLES = [tinySample(20, 12, 1), tinySample(30, 20, 2)];

/** A recipe whose student is its own teacher. */
function ownRecipe(files: TinyFiles, self: SelfRecipe | undefined, changes: RecipeChanges = {}): Recipe {
  return tinyRecipe(files, {
    teacher: { model: "student", ...(self ? { self } : {}) },
    student: { model: files.teacher },
    ...changes,
  });
}

/** What a trainer has after each step of a few, and how its teacher does. */
async function follow(gpu: Gpu, recipe: Recipe, steps: number) {
  using setup = await tinySetup(recipe);
  const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
  try {
    trainer.executable.poison();
    trainer.setState((await setup.trainables.initialValues(1)).trained);
    const states = [await trainer.readState()];
    for (let step = 0; step < steps; step++) {
      await trainer.step(step, [packBatch(SAMPLES, trainer.planned.choices.tokens)]);
      states.push(await trainer.readState());
    }
    const metrics = await trainer.collect();
    const teacher = await trainer.evaluateTeacher(SAMPLES);
    const student = await trainer.evaluate(SAMPLES);
    // The student with the copy in the place of what was trained.
    const { copy, parameters } = states.at(-1)!;
    const asTaught = new Float32Array(parameters.length);
    if (copy) asTaught.set(copy);
    trainer.setState(asTaught);
    const { losses } = await trainer.evaluate(SAMPLES);
    return { states, metrics, teacher: teacher.losses, student: student.losses, asTaught: losses };
  } finally {
    trainer.destroy();
  }
}

modelTest(
  "a mean of the student follows it, and teaches what the student would be with it",
  (gpu) =>
    withTiny(async (files) => {
      const decay = 0.75;
      const { states, metrics, teacher, student, asTaught } = await follow(
        gpu,
        ownRecipe(files, { kind: "mean", decay }),
        5,
      );
      let mean = Float64Array.from(states[0]!.parameters);
      assertEquals(states[0]!.copy, states[0]!.parameters, "it begins as the student does");
      for (const { parameters, copy } of states.slice(1)) {
        mean = mean.map((m, i) => decay * m + (1 - decay) * parameters[i]!);
        assert(maxDifference(copy!, mean) < 1e-6, "the mean of an f64 oracle");
        // The check would notice a mean of the step before.
        assertGreater(maxDifference(parameters, mean), 1e-4);
      }
      assertEquals(metrics[0]!.losses["forward-kl"], 0, "nothing has moved in the first step");
      assertGreater(metrics[4]!.losses["forward-kl"]!, 1e-4);
      assertEquals(teacher["cross-entropy"], asTaught["cross-entropy"]);
      assertGreater(Math.abs(teacher["cross-entropy"]! - student["cross-entropy"]!), 1e-3);
      assertEquals(asTaught["forward-kl"], 0, "its own copy");
    }, SMALL),
);

modelTest(
  "a copy of the student is made anew every so many steps, bit for bit",
  (gpu) =>
    withTiny(async (files) => {
      const { states, metrics, teacher, asTaught } = await follow(
        gpu,
        ownRecipe(files, { kind: "lagged", every: 2 }),
        5,
      );
      [0, 0, 2, 2, 4, 4].forEach((step, i) =>
        assertEquals(states[i]!.copy, states[step]!.parameters, `${i}`)
      );
      const divergences = metrics.map((m) => m.losses["forward-kl"]!);
      assertEquals(divergences.map((d) => d === 0), [true, false, true, false, true], "0 right after a copy");
      assertEquals(teacher["cross-entropy"], asTaught["cross-entropy"]);
    }, SMALL),
);

modelTest(
  "the student without its adapter is what it was before training, and takes no memory of its own",
  (gpu) =>
    withTiny(async (files) => {
      const { states, metrics, teacher, student } = await follow(gpu, ownRecipe(files, undefined), 4);
      assertEquals(states[0]!.copy, undefined);
      assertEquals(metrics[0]!.losses["forward-kl"], 0);
      assertGreater(metrics[3]!.losses["forward-kl"]!, 1e-4);
      assertGreater(Math.abs(teacher["cross-entropy"]! - student["cross-entropy"]!), 1e-3);
      // The same as a teacher of the same file.
      const live = await follow(gpu, tinyRecipe(files, { student: { model: files.teacher } }), 4);
      assertEquals(metrics, live.metrics);
      assertEquals(states, live.states);
      assertEquals(teacher, live.teacher);

      const bytes = async (recipe: Recipe) => {
        using setup = await tinySetup(recipe);
        return planTraining(setup, DEFAULT_DEVICE).plan.bytesByCategory;
      };
      const own = await bytes(ownRecipe(files, undefined));
      assertEquals(own.get("teacher weights"), undefined);
      const rounded = await bytes(tinyRecipe(files, { student: { model: files.teacher, dtype: "f16" } }));
      assertEquals(own.get("student weights"), rounded.get("teacher weights"), "one set of weights");
      const mean = await bytes(ownRecipe(files, { kind: "mean", decay: 0.9 }));
      const adapter = "adapter and optimiser";
      // Parameters, gradients and both moments; and a copy of the parameters.
      assertEquals(mean.get(adapter)! / own.get(adapter)!, 5 / 4);
    }, SMALL),
);

Deno.test({
  name: "runs of a student that teaches itself continue bit for bit, and measure a teacher that moves",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: () =>
    withTiny(async (files) => {
      for (const self of [{ kind: "mean", decay: 0.75 }, { kind: "lagged", every: 4 }] as const) {
        const recipe = ownRecipe(files, self, {
          train: { steps: 6, checkpointEvery: 3, evaluateEvery: 3 },
          adapter: { dropout: 0.2 },
        });
        const run = async (name: string, stopAt?: number) => {
          const events: RunEventBody[] = [];
          const folder = `${files.folder}/${self.kind}-${name}`;
          await runHere(recipe, folder, { control: (step) => step === stopAt ? "stop" : "run" }, events);
          if (stopAt) await runHere(recipe, folder, { resume: true }, events);
          const adapter = await Deno.readFile(`${folder}/adapter/adapter_model.safetensors`);
          const state = await Deno.readFile(`${folder}/checkpoints/step-000006/state.safetensors`);
          return { events, adapter, state };
        };
        const [whole, parts] = [await run("whole"), await run("parts", 3)];
        assertEquals(parts.adapter, whole.adapter);
        assertEquals(parts.state, whole.state);
        const last = (events: readonly RunEventBody[]) => heldMetrics(events).at(-1);
        assertEquals(last(parts.events), last(whole.events));
        const measured = whole.events.flatMap((e) =>
          e.type === "evaluation" && e.model === "teacher" ? [e.step] : []
        );
        assertEquals(measured, [0, 3, 6]);
      }
    }, SMALL),
});

Deno.test("what a copy keeps of itself follows from the step alone", () => {
  assertEquals([0, 1, 2, 3, 4, 5].map((s) => copyKeeps(s, { self: { kind: "lagged", every: 3 } })), [
    1,
    1,
    0,
    1,
    1,
    0,
  ]);
  assertEquals(copyKeeps(7, { self: { kind: "mean", decay: 0.9 } }), 0.9);
  assertEquals(copyKeeps(7, { self: { kind: "initial" } }), 1);
});

Deno.test("a student that teaches itself in a way that makes no sense is refused by the field", () => {
  const files = { folder: "", teacher: "model", train: "train.jsonl", heldOut: "heldout.jsonl" };
  const refused = (changes: RecipeChanges, path: string) =>
    assertThrows(() => tinyRecipe(files, { student: { model: "model" }, ...changes }), RecipeError, path);
  const mean = { kind: "mean", decay: 0.9 } as const;
  refused({ teacher: { self: mean } }, "teacher.self");
  refused({ teacher: { model: "student" }, student: { model: "teacher" } }, "student.model");
  refused({ teacher: { model: "student", self: mean, cache: { topK: 4 } } }, "teacher.cache");
  refused({ teacher: { model: "student", stream: true } }, "teacher.stream");
  refused({ teacher: { model: "student", quantize: "nf4" } }, "teacher.quantize");
  refused({ teacher: { model: "student", train: true } }, "teacher.train");
  refused({ teacher: { model: "student", self: { kind: "mean", decay: 1 } } }, "teacher.self.decay");
  refused({
    teacher: { model: "student" },
    student: { model: "model", shapes: { layers: [[0]] } },
    objective: [{ loss: "cross-entropy" }],
  }, "student.shapes");
});
