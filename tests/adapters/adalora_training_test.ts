/** AdaLoRA in whole runs: its penalty beside the losses, its pruning, and runs that are interrupted. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertGreater } from "@std/assert";
import type { Recipe } from "../../src/distill/recipe/recipe.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { type StepMetrics } from "../../src/distill/program/metrics/step_metrics.ts";
import { openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { packBatch } from "../../src/text/packing.ts";
import { assertWithin, maxDifference, modelTest, randomArray } from "../tensor/harness.ts";
import { heldMetrics, runHere } from "../distill/tiny_run.ts";
import {
  type RecipeChanges,
  type TinyFiles,
  tinyRecipe,
  tinySample,
  tinySetup,
  withTiny,
} from "../distill/tiny_model.ts";

const BATCHES = [packBatch([tinySample(30, 20, 1)], 64), packBatch([tinySample(50, 31, 2)], 64)];

/** One step from random parameters: its numbers, and the gradients it ends with. */
async function oneStep(gpu: Gpu, recipe: Recipe, window = BATCHES) {
  using setup = await tinySetup(recipe);
  const { layout } = setup.trainables;
  const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
  try {
    trainer.executable.poison();
    const values = new Map(layout.parameters.map((p, i) => [p.name, randomArray(p.count, i + 1, 0.3)]));
    const flat = new Float32Array(layout.total);
    layout.scatter(flat, values);
    trainer.setState(flat);
    await trainer.step(0, window);
    const gradients = await trainer.readGradients();
    const state = await trainer.readState();
    const metrics = (await trainer.collect())[0]! as StepMetrics;
    return { values, gradients, metrics, states: setup.trainables.states.gather(state.states) };
  } finally {
    trainer.destroy();
  }
}

/** |P P^T - I| of the rows of P [rows, columns], and its gradient, in f64. */
function orthogonality(p: Float32Array, rows: number, columns: number) {
  const off = Array.from({ length: rows }, (_, i) =>
    Array.from({ length: rows }, (_, j) => {
      let sum = 0;
      for (let c = 0; c < columns; c++) sum += p[i * columns + c]! * p[j * columns + c]!;
      return sum - Number(i === j);
    }));
  const norm = Math.hypot(...off.flat());
  const gradient = Float64Array.from(p, (_, at) => {
    const [i, c] = [Math.floor(at / columns), at % columns];
    return 2 / norm * off[i]!.reduce((sum, v, j) => sum + v * p[j * columns + c]!, 0);
  });
  return { norm, gradient };
}

function transposed(p: Float32Array, rows: number, columns: number): Float32Array {
  return Float32Array.from(p, (_, at) => p[at % rows * columns + Math.floor(at / rows)]!);
}

const adalora = (options: Record<string, unknown> = {}) => ({ type: "adalora", rank: 4, options });

modelTest(
  "the penalty joins the gradient once a step, however many micro-batches there are, and is reported",
  (gpu) =>
    withTiny(async (files) => {
      const changes: RecipeChanges = { student: { model: "teacher" }, train: { clip: 0, weightDecay: 0 } };
      const recipe = (orthRegWeight: number) =>
        tinyRecipe(files, { ...changes, adapter: adalora({ orthRegWeight }) });
      for (const window of [BATCHES.slice(0, 1), BATCHES]) {
        const without = await oneStep(gpu, recipe(0), window);
        const { values, gradients, metrics } = await oneStep(gpu, recipe(0.7), window);
        const factors = [...values].filter(([name]) => !name.endsWith("E"));
        let penalty = 0;
        for (const [name, p] of factors) {
          const isA = name.endsWith("A");
          const { norm, gradient } = orthogonality(isA ? p : transposed(p, p.length / 4, 4), 4, p.length / 4);
          penalty += 0.7 / factors.length * norm;
          const wanted = isA ? gradient : transposed(Float32Array.from(gradient), 4, p.length / 4);
          const added = gradients.get(name)!.map((g, i) => g - without.gradients.get(name)![i]!);
          const expected = Float64Array.from(wanted, (g) => 0.7 / factors.length * g);
          assertWithin(added, expected, 2e-6, name);
          assertGreater(maxDifference(expected, new Float32Array(p.length)), 1e-3);
        }
        assertEquals(Object.keys(metrics.losses).at(-1), "penalty");
        assertAlmostEquals(metrics.losses.penalty!, penalty, 1e-5);
        assertAlmostEquals(metrics.loss, without.metrics.loss, 1e-6);
        assertEquals(without.metrics.losses.penalty, 0);
      }
    }, { layers: 1 }),
);

modelTest(
  "what AdaLoRA counts is the clipped gradient, and a step that is left out does not count",
  (gpu) =>
    withTiny(async (files) => {
      const changes: RecipeChanges = { student: { model: "teacher" }, adapter: adalora({ tinit: 5 }) };
      const of = (clip: number) =>
        oneStep(gpu, tinyRecipe(files, { ...changes, train: { clip, learningRate: 1e-9 } }));
      const plain = await of(0);
      const clipped = await of(plain.metrics.gradientNorm / 4);
      let most = 0;
      for (const [name, values] of plain.states) {
        if (!name.includes("sensitivity")) continue;
        assertWithin(clipped.states.get(name)!.map((v) => 4 * v), values, 1e-6, name);
        most = Math.max(most, ...values);
      }
      assertGreater(most, 1e-4);
      using setup = await tinySetup(tinyRecipe(files, changes));
      const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
      const flat = new Float32Array(setup.trainables.layout.total);
      flat[3] = NaN;
      trainer.setState(flat);
      await trainer.step(0, BATCHES);
      assertEquals((await trainer.collect())[0]!.nonFinite, true);
      for (const [name, values] of setup.trainables.states.gather((await trainer.readState()).states)) {
        if (/sensitivity|uncertainty/.test(name)) assert(values.every((v) => v === 0), name);
      }
      trainer.destroy();
    }, { layers: 1 }),
);

/** Both models train an adapter that prunes; nothing of it may be lost with the process. */
const wholeRecipe = (files: TinyFiles): Recipe =>
  tinyRecipe(files, {
    teacher: {
      train: true,
      adapter: adalora({ targetRank: 2, deltaT: 3, tinit: 1, tfinal: 2 }),
    },
    adapter: adalora({ targetRank: 1, tinit: 3, tfinal: 4, deltaT: 2 }),
    objective: [{ loss: "forward-kl", weight: 1 }, { loss: "cross-entropy", learner: "teacher", weight: 1 }],
    student: { model: "teacher", layers: [1] },
    train: { steps: 16, accumulation: 2, checkpointEvery: 3, evaluateEvery: 5, keepCheckpoints: 9 },
  });

async function checkpoint(folder: string, step: number): Promise<Map<string, Float32Array>> {
  const name = `step-${String(step).padStart(6, "0")}`;
  const file = await SafetensorsFile.open(await openFile(`${folder}/checkpoints/${name}/state.safetensors`));
  const tensors = new Map<string, Float32Array>();
  for (const key of file.tensors.keys()) tensors.set(key, (await file.read(key)).data as Float32Array);
  file.close();
  return tensors;
}

/** Triplets that count, of an adapter's parameters in a checkpoint. */
function triplets(tensors: ReadonlyMap<string, Float32Array>, prefix: string): boolean[] {
  return [...tensors].filter(([name]) => name.startsWith(`${prefix}model.`) && name.endsWith("lora_E"))
    .flatMap(([, values]) => Array.from(values, (v) => v !== 0));
}

Deno.test("an interrupted run prunes as an uninterrupted one does, bit for bit", () =>
  withTiny(async (files) => {
    const recipe = wholeRecipe(files);
    const whole = `${files.folder}/whole`;
    assertEquals((await runHere(recipe, whole)).status, "succeeded");
    const linears = 7;
    const count = async (step: number, prefix: string) =>
      triplets(await checkpoint(whole, step), prefix).filter(Boolean).length;
    // Nothing is pruned at first; at the end as much as there is to be, and the same in every step since.
    assertEquals(await count(3, "parameters."), 4 * linears);
    for (const step of [12, 15, 16]) assertEquals(await count(step, "parameters."), 1 * linears, `${step}`);
    assertEquals(await count(15, "parameters.teacher."), 2 * 2 * linears);
    const [at12, at16] = [await checkpoint(whole, 12), await checkpoint(whole, 16)];
    assertEquals(triplets(at12, "parameters."), triplets(at16, "parameters."));
    const ranks = new Map<string, number>();
    for (const [name, kept] of at16) {
      if (!name.startsWith("kept.model.") || !name.endsWith(".kept")) continue;
      ranks.set(name, kept.reduce((a, b) => a + b));
      const e = at16.get(name.replace("kept.", "parameters.").replace(/\.kept$/, ".lora_E"))!;
      assertEquals(Array.from(e, (v) => v !== 0), Array.from(kept, (k) => k === 1), name);
    }
    assertEquals(ranks.size, linears);
    assertGreater(new Set(ranks.values()).size, 1, "ranks differ between layers");

    const same = async (folder: string, how: string) => {
      for (const file of ["adapter/adapter_model.safetensors", "checkpoints/step-000016/state.safetensors"]) {
        assertEquals(await Deno.readFile(`${folder}/${file}`), await Deno.readFile(`${whole}/${file}`), how);
      }
    };
    // Before, amid and after the pruning.
    const stopped = `${files.folder}/stopped`;
    for (const [attempt, steps] of [2, 5, 6].entries()) {
      const control = (done: number) => done === steps ? "stop" as const : "run" as const;
      assertEquals((await runHere(recipe, stopped, { resume: attempt > 0, control })).status, "paused");
    }
    await runHere(recipe, stopped, { resume: true });
    await same(stopped, "stopped");
    // As a kill leaves it: the latest checkpoint lies some steps back, amid the pruning.
    const killed = `${files.folder}/killed`;
    const events: RunEventBody[] = [];
    await runHere(recipe, killed, { control: (done) => done === 8 ? "stop" : "run" }, events);
    await Deno.remove(`${killed}/checkpoints/step-000008`, { recursive: true });
    await runHere(recipe, killed, { resume: true }, events);
    assertEquals(events.find((event) => event.type === "rewind"), { type: "rewind", step: 6 });
    await same(killed, "killed");
    const rows = heldMetrics(events).filter((row) => row.type === "metrics");
    assertEquals(rows.length, 16);
    assert(rows.every((row) => (row.losses as Record<string, number>).penalty! > 0));
  }, { layers: 2 }));
