/** What a run leaves for others, read back. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertGreater } from "@std/assert";
import { evaluateModel } from "../../src/distill/evaluate/evaluate_model.ts";
import type { RunResult } from "../../src/distill/export/exports.ts";
import { readCheckpoint } from "../../src/distill/checkpoint/checkpoint.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import type { Recipe } from "../../src/distill/recipe/recipe.ts";
import { openModel } from "../../src/formats/open_model.ts";
import { loraRank, loraScaling, readPeftAdapter } from "../../src/formats/peft/peft.ts";
import { openGpu } from "../../src/gpu/device.ts";
import { Registry } from "../../src/registry/registry.ts";
import { builtins } from "../../plugins/mod.ts";
import { type Adapted, Reader } from "./logits.ts";
import { runHere } from "./tiny_run.ts";
import {
  type AdaptedSetup,
  type TinyFiles,
  tinyRecipe,
  tinySample,
  tinySetup,
  withTiny,
} from "./tiny_model.ts";

/** A finished run, and its parameters as the last checkpoint has them. */
interface Finished {
  readonly folder: string;
  readonly result: RunResult;
  readonly setup: AdaptedSetup;
  readonly parameters: Float32Array;
}

async function withRun(
  files: TinyFiles,
  recipe: Recipe,
  fn: (run: Finished) => Promise<void>,
): Promise<void> {
  const folder = `${files.folder}/run`;
  const result = await runHere(recipe, folder);
  using setup = await tinySetup(recipe);
  const last = `${folder}/checkpoints/step-${String(recipe.train.steps).padStart(6, "0")}`;
  const { flat } = await readCheckpoint(last, setup.trainables);
  await fn({ folder, result, setup, parameters: flat.parameters });
}

const recipeOf = (files: TinyFiles, changes: Parameters<typeof tinyRecipe>[1] = {}) =>
  tinyRecipe(files, {
    ...changes,
    train: { steps: 8, checkpointEvery: 0, evaluateEvery: 0, learningRate: 0.03 },
  });

async function assertAdapter({ folder, setup, parameters }: Finished): Promise<void> {
  const { tensors } = await readPeftAdapter(`${folder}/adapter`);
  const values = setup.trainables.layout.gather(parameters);
  assertEquals([...tensors.keys()].sort(), [...values.keys()].sort());
  for (const [name, { dtype, shape, data }] of tensors) {
    assertEquals([dtype, shape], ["f32", setup.trainables.layout.get(name).shape], name);
    assertEquals(data, new Float32Array(values.get(name)!), name);
    assertGreater(Math.hypot(...data), 0, `${name} was trained`);
  }
}

/** Largest difference of logits over a text, relative to their spread. */
async function logitDifference(a: [Model, Adapted?], b: [Model, Adapted?]): Promise<number> {
  const gpu = await openGpu();
  const tokens = tinySample(30, 0, 77).ids;
  const read = async ([model, adapted]: [Model, Adapted?]) => {
    using reader = await Reader.open(gpu, model, 32, adapted);
    return (await reader.logits(tokens)).slice();
  };
  try {
    const [x, y] = [await read(a), await read(b)];
    const spread = Math.hypot(...y) / Math.sqrt(y.length);
    return Math.max(...x.map((v, i) => Math.abs(v - y[i]!))) / spread;
  } finally {
    gpu.destroy();
  }
}

async function assertMerged(run: Finished, tolerance: number): Promise<void> {
  const { student, adapter } = run.setup;
  const merged = await Model.open(`${run.folder}/merged`, { category: "weights" });
  const adapted = { adapter, parameters: run.parameters };
  try {
    const difference = await logitDifference([merged], [student, adapted]);
    assert(difference < tolerance, `merged and adapted logits differ by ${difference}`);
    // Far less than what the adapter changes.
    assertGreater(await logitDifference([merged], [student]), 100 * tolerance);
  } finally {
    merged.close();
  }
}

Deno.test("a cut student leaves base/, adapter/ and merged/ that belong together", () =>
  withTiny(async (files) => {
    await withRun(files, recipeOf(files), async (run) => {
      const { folder, result, setup: { student } } = run;
      assertEquals(result.paths, { adapter: "adapter", base: "base", merged: "merged" });
      await assertAdapter(run);

      const base = await openModel(`${folder}/base`);
      const original = await openModel(files.teacher);
      const stored = student.tensors();
      assertEquals([...base.tensors.keys()].sort(), [...stored.keys()].sort());
      for (const name of stored.keys()) {
        const [written, used] = [await base.read(name), await student.read(name)];
        assertEquals(written, used, name);
        const source = await original.read(name.replace("layers.1.", "layers.2."));
        assertEquals(written, source, `${name} in the teacher`);
      }
      assertEquals([base.config.num_hidden_layers, base.config.torch_dtype], [2, "float32"]);
      base.close();
      original.close();
      const { settings } = await readPeftAdapter(`${folder}/adapter`);
      assertEquals(settings.baseModel, `${folder}/base`);

      await assertMerged(run, 3e-5);
      // The reported figures are those of the folders.
      const measured = async (model: string) =>
        (await evaluateModel({
          model,
          data: files.heldOut,
          contextLength: 64,
          registry: new Registry().addAll(builtins),
        })).loss;
      assertAlmostEquals(await measured(`${folder}/base`), result.heldOut.before!, 2e-6);
      assertAlmostEquals(await measured(files.teacher), result.heldOut.teacher!, 2e-6);
      assertAlmostEquals(await measured(`${folder}/merged`), result.heldOut.after!, 2e-6);
      assertGreater(result.heldOut.before! - result.heldOut.after!, 0.1);
      assertEquals(result.peakBytes.planned, result.peakBytes.allocated);
    });
  }));

Deno.test("a whole f32 student is its own base, and merges to f32 rounding; patterns and targets are written down", () =>
  withTiny(async (files) => {
    const recipe = recipeOf(files, {
      student: { model: files.teacher },
      adapter: {
        rank: 4,
        alpha: 8,
        dropout: 0.1,
        targets: ["q_proj", "model.layers.1.mlp.down_proj"],
        rankPattern: { "layers.0.self_attn.q_proj": 2 },
        alphaPattern: { down_proj: 3 },
      },
    });
    await withRun(files, recipe, async (run) => {
      const { folder, result, setup: { adapter } } = run;
      assertEquals(result.paths, { adapter: "adapter", merged: "merged" });
      await assertAdapter(run);
      const { settings } = await readPeftAdapter(`${folder}/adapter`);
      assertEquals(settings.baseModel, files.teacher);
      assertEquals([settings.rank, settings.alpha, settings.dropout], [4, 8, 0.1]);
      const q = (layer: number) => `model.layers.${layer}.self_attn.q_proj`;
      const down = "model.layers.1.mlp.down_proj";
      assertEquals([...settings.targetModules].sort(), [q(0), down, q(1), q(2)]);
      assertEquals(adapter.layers.map((l) => [l.path, l.rank, l.alpha]), [
        [q(0), 2, 8],
        [q(1), 4, 8],
        [down, 4, 3],
        [q(2), 4, 8],
      ]);
      for (const { path, rank, alpha } of adapter.layers) {
        assertEquals([loraRank(settings, path), loraScaling(settings, path)], [rank, alpha / rank], path);
      }
      await assertMerged(run, 3e-5);
    });
  }));

Deno.test("targets that every layer has are written by their short names, rsLoRA is marked", () =>
  withTiny(async (files) => {
    const recipe = recipeOf(files, {
      student: { model: files.teacher },
      adapter: { targets: ["v_proj", "gate_proj"], rslora: true, rank: 9, alpha: 6 },
    });
    await withRun(files, recipe, async (run) => {
      await assertAdapter(run);
      const { settings } = await readPeftAdapter(`${run.folder}/adapter`);
      assertEquals([...settings.targetModules], ["gate_proj", "v_proj"]);
      assertEquals([settings.rsLora, loraScaling(settings, "model.layers.0.mlp.gate_proj")], [true, 2]);
      await assertMerged(run, 3e-5);
    });
  }));
