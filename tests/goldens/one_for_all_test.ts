/** Training several shapes at once beside PyTorch: `../shared/goldens/shapes/one_for_all`. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { cutShape } from "../../src/distill/export/export_shape.ts";
import { plainLayers } from "../../src/distill/export/plain_lora.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { type ShapeSpace, shapeSpace, type StudentShape } from "../../src/distill/inputs/shape_space.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import type { RecipeInput } from "../../src/distill/recipe/recipe.ts";
import { setUp } from "../../src/distill/run/set_up.ts";
import { Trainables } from "../../src/distill/trained/trainables.ts";
import { openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { Registry } from "../../src/registry/registry.ts";
import { packBatch, type PackedBatch } from "../../src/text/packing.ts";
import { builtins } from "../../plugins/mod.ts";
import { Reader } from "../distill/logits.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { testGpu } from "../tensor/harness.ts";

const MODEL = "models/stories260K";

interface GoldenShape {
  layers: number[];
  width: number;
  loss: number;
  factor: number;
}

interface GoldenRun {
  settings: {
    steps: number;
    warmup_steps: number;
    lr: number;
    weight_decay: number;
    max_grad_norm: number;
    kd_weight: number;
    experts: number;
    rank: number;
    alpha: number;
    top_k: number;
    hidden: number;
    seq_len: number;
    widths: number[];
    divergence: "soft_ce" | "fkl";
    clamp: [number, number];
    smallest: { layers: number[]; width: number };
  };
  width_cuts: Record<string, { kept_groups: number[][]; kept_channels: number[][] }>;
  exports: { folder: string; layers: number[]; width: number }[];
  steps: { lr: number; grad_norm: number; total: number; shapes: (GoldenShape & { tokens: number })[] }[];
}

async function tensors(path: string): Promise<Map<string, Float32Array>> {
  const file = await SafetensorsFile.open(await openFile(path));
  const all = new Map<string, Float32Array>();
  for (const name of file.tensors.keys()) {
    all.set(ourName(name), (await file.readArray(name)).data as Float32Array);
  }
  file.close();
  return all;
}

function ourName(name: string): string {
  return name.replace(/\.([AB])$/, ".shape_gated_$1.weight").replace(
    /^router\.w([12])$/,
    "shared.shape_router_$1.weight",
  );
}

/** The shapes of a golden run: its smallest depth, and every width with its cut. */
async function goldenSpace(folder: string, run: GoldenRun): Promise<ShapeSpace> {
  const all = [0, 1, 2, 3, 4];
  const widths = [];
  for (const share of run.settings.widths) {
    const cut = run.width_cuts[`${share}`];
    if (!cut) {
      widths.push({ share });
      continue;
    }
    const biases = await tensors(`${folder}/bias_${share}.safetensors`);
    widths.push({
      share,
      cut: {
        groups: cut.kept_groups,
        channels: cut.kept_channels,
        compensation: all.map((l) => ({
          attention: Float64Array.from(biases.get(`model.layers.${l}.self_attn.o_proj`)!),
          mlp: Float64Array.from(biases.get(`model.layers.${l}.mlp.down_proj`)!),
        })),
      },
    });
  }
  return shapeSpace([all, run.settings.smallest.layers], widths);
}

function recipeOf({ settings: s }: GoldenRun, accumulation: number, changes: Mistake): RecipeInput {
  const { min = s.clamp[0], max = s.clamp[1], weightDecay = s.weight_decay, topK = s.top_k } = changes;
  return {
    teacher: { model: sharedPath(MODEL) },
    student: { model: "teacher", shapes: { layers: [s.smallest.layers] } },
    data: { train: "golden", contextLength: s.seq_len },
    adapter: {
      type: "shape-gated-lora",
      rank: s.rank,
      alpha: s.alpha,
      options: { experts: s.experts, topK, hidden: s.hidden, noise: false },
    },
    train: {
      steps: s.steps,
      tokensPerMicroBatch: 128 / accumulation,
      accumulation,
      learningRate: s.lr,
      schedule: "cosine",
      warmup: s.warmup_steps,
      weightDecay,
      clip: s.max_grad_norm,
      oneForAll: {
        random: 2,
        loss: { soft_ce: "soft-cross-entropy", fkl: "forward-kl" }[changes.divergence ?? s.divergence],
        lossWeight: s.kd_weight,
        balance: { min, max },
      },
    },
  };
}

interface Mistake {
  min?: number;
  max?: number;
  weightDecay?: number;
  topK?: number;
  divergence?: "soft_ce" | "fkl";
}

function packed(ids: Int32Array, labels: Int32Array, length: number): PackedBatch {
  const samples = Array.from({ length: ids.length / length }, (_, b) => ({
    ids: ids.slice(b * length, (b + 1) * length),
    supervised: Uint8Array.from(labels.subarray(b * length, (b + 1) * length), (l) => Number(l !== -100)),
    source: { file: "golden", line: 1 },
  }));
  return packBatch(samples, ids.length);
}

function near(actual: number, expected: number, tolerance: number, what: string): void {
  if (!(Math.abs(actual - expected) <= tolerance)) {
    throw new Error(`${what} is ${actual}, expected ${expected} +- ${tolerance}`);
  }
}

function distance(actual: ArrayLike<number>, expected: ArrayLike<number>) {
  let [l2, norm, max] = [0, 0, 0];
  for (let i = 0; i < expected.length; i++) {
    const d = actual[i]! - expected[i]!;
    [l2, norm] = [l2 + d * d, norm + expected[i]! ** 2];
    max = Math.max(max, Number.isNaN(d) ? Infinity : Math.abs(d));
  }
  return { l2: Math.sqrt(l2), norm: Math.sqrt(norm), max };
}

/** Trains as the golden run did, and compares every number of it, or of its first steps. */
async function follow(
  name: string,
  family: "subgroup8" | "tiled",
  { accumulation = 1, most = Infinity, mistake = {} }: {
    accumulation?: number;
    most?: number;
    mistake?: Mistake;
  } = {},
): Promise<void> {
  const folder = sharedPath(`goldens/shapes/one_for_all/${name}`);
  const golden: GoldenRun = JSON.parse(await Deno.readTextFile(`${folder}/run.json`));
  const { settings } = golden;
  const space = await goldenSpace(folder, golden);
  const recipe = parseRecipe(recipeOf(golden, accumulation, mistake));
  const teacher = await Model.open(recipe.teacher.model, { category: "teacher weights" });
  const student = await Model.open(recipe.teacher.model, { category: "student weights", shapes: space });
  const gpu = await testGpu(family);
  let trainer: Trainer | undefined;
  try {
    const setup = setUp({ recipe, teacher, student }, new Registry().addAll(builtins));
    // The golden's random shapes are not among those of the recipe: there are as many as it says.
    const ofGolden = { ...setup, oneForAll: { ...setup.oneForAll!, shapes: 4 } };
    trainer = await Trainer.create(gpu, ofGolden, planTraining(ofGolden, gpu.description));
    assertEquals(gpu.allocatedBytes, trainer.planned.plan.totalBytes);
    trainer.executable.poison();
    const { layout } = setup.trainables;
    const start = new Float32Array(layout.total);
    layout.scatter(start, await tensors(`${folder}/init.safetensors`));
    trainer.setState(start);
    const batches = await tensors(`${folder}/batches.safetensors`) as unknown as Map<string, Int32Array>;
    const perStep = 2 * settings.seq_len;
    const perBatch = perStep / accumulation;
    for (const [step, expected] of golden.steps.slice(0, most).entries()) {
      const where = `step ${step}`;
      const part = (key: string, i: number) =>
        batches.get(key)!.subarray(step * perStep + i * perBatch, step * perStep + (i + 1) * perBatch);
      const window = Array.from(
        { length: accumulation },
        (_, i) => packed(part("ids", i), part("labels", i), settings.seq_len),
      );
      const shapes = expected.shapes.map(({ layers, width }): StudentShape => ({
        layers,
        width: space.widths.findIndex((w) => w.share === width),
      }));
      await trainer.step(step, window, shapes);
      const [m] = await trainer.collect();
      near(m!.learningRate, expected.lr, 1e-9, `${where} learning rate`);
      assertEquals(m!.shapes!.length, 4);
      expected.shapes.forEach(({ loss, factor, tokens }, i) => {
        assertEquals(m!.supervisedTokens, tokens);
        near(m!.shapes![i]!.loss, loss, 2e-5, `${where} loss of shape ${i}`);
        near(m!.shapes![i]!.factor, factor, 1e-5, `${where} factor of shape ${i}`);
      });
      near(m!.loss, expected.total, 1e-4, `${where} total`);
      if (step === 0 || step === 5) {
        const actual = await trainer.readGradients();
        const wanted = await tensors(`${folder}/grads_step${step}.safetensors`);
        assertEquals([...actual.keys()].sort(), [...wanted.keys()].sort());
        for (const [key, gradient] of wanted) {
          const { l2, norm } = distance(actual.get(key)!, gradient);
          if (!(l2 <= 1e-4 * norm)) throw new Error(`${where} gradient of ${key} is off by ${l2 / norm}`);
        }
      }
      near(m!.gradientNorm, expected.grad_norm, 1e-4 * expected.grad_norm, `${where} gradient norm`);
    }
    if (most >= golden.steps.length) {
      const trained = layout.gather((await trainer.readState()).parameters);
      let [l2, max] = [0, 0];
      for (const [key, values] of await tensors(`${folder}/params_after_10_steps.safetensors`)) {
        const d = distance(trained.get(key)!, values);
        [l2, max] = [Math.hypot(l2, d.l2), Math.max(max, d.max)];
      }
      if (!(l2 <= 3e-4 && max <= 2e-4)) throw new Error(`parameters differ by ${l2} (L2), ${max} (largest)`);
    }
  } finally {
    trainer?.destroy();
    teacher.close();
    student.close();
  }
  assertEquals(gpu.allocatedBytes, 0);
}

/** Cuts each of the golden's exported shapes out of its trained parameters, and compares factors and logits. */
async function exportAll(name: string): Promise<void> {
  const folder = sharedPath(`goldens/shapes/one_for_all/${name}`);
  const golden: GoldenRun = JSON.parse(await Deno.readTextFile(`${folder}/run.json`));
  const space = await goldenSpace(folder, golden);
  const recipe = parseRecipe(recipeOf(golden, 1, {}));
  const registry = new Registry().addAll(builtins);
  const student = await Model.open(recipe.teacher.model, { category: "student weights", shapes: space });
  const { adapter } = setUp({ recipe, teacher: student, student }, registry);
  const values = await adapter!.namedValues(await tensors(`${folder}/params_after_10_steps.safetensors`), 1);
  const ids = (await tensors(`${folder}/batches.safetensors`)).get("ids") as unknown as Int32Array;
  const expectedLogits = await tensors(`${folder}/export_logits.safetensors`);
  const gpu = await testGpu("subgroup8");
  for (const { folder: key, layers, width } of golden.exports) {
    const shape = { layers, width: space.widths.findIndex((w) => w.share === width) };
    const cut = await cutShape(student, adapter!, values, shape, registry);
    const expected = await tensors(`${folder}/${key}/adapter_model.safetensors`);
    const { r, lora_alpha } = JSON.parse(await Deno.readTextFile(`${folder}/${key}/adapter_config.json`));
    const own = plainLayers(cut.adapter, cut.values);
    assertEquals(own.length * 2, expected.size, key);
    for (const { path, rank, scale, a, b, inFeatures, outFeatures } of own) {
      assertEquals(scale, lora_alpha / r);
      const factor = (which: string) => expected.get(`base_model.model.${path}.lora_${which}.weight`)!;
      const wanted = product(factor("B"), factor("A"), outFeatures, r, inFeatures);
      const { l2, norm } = distance(product(b, a, outFeatures, rank, inFeatures), wanted);
      if (!(l2 <= 1e-5 * norm)) throw new Error(`${key} ${path} is off by ${l2 / norm}`);
    }
    const trainables = new Trainables([cut.adapter]);
    const parameters = new Float32Array(trainables.layout.total);
    trainables.layout.scatter(parameters, cut.values);
    const length = golden.settings.seq_len;
    const reader = await Reader.open(gpu, cut.model, length, { adapter: cut.adapter, parameters });
    const logits = expectedLogits.get(key)!;
    for (const sequence of [0, 1]) {
      const found = await reader.logits(ids.subarray(sequence * length, (sequence + 1) * length));
      const half = logits.subarray(sequence * logits.length / 2, (sequence + 1) * logits.length / 2);
      const { max } = distance(found, half);
      if (!(max <= 1e-3)) throw new Error(`${key} logits are off by ${max}`);
    }
    reader[Symbol.dispose]();
    cut.model.close();
  }
  student.close();
}

function product(b: ArrayLike<number>, a: ArrayLike<number>, rows: number, rank: number, columns: number) {
  const result = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let k = 0; k < rank; k++) {
      for (let j = 0; j < columns; j++) {
        result[i * columns + j]! += b[i * rank + k]! * a[k * columns + j]!;
      }
    }
  }
  return result;
}

for (const name of ["depth_soft_ce", "depth_width_fkl"]) {
  sharedTest(`a shape cut out of a run is the plain LoRA that PyTorch finds: ${name}`, () => exportAll(name));
}

// Up to the second gradients that the golden has; the one whose shapes are cut in width too shows where its steps lead.
for (const [name, most] of [["depth_soft_ce", 6], ["depth_width_fkl", Infinity]] as const) {
  sharedTest(
    `training several shapes at once follows PyTorch: ${name}`,
    () => follow(name, "subgroup8", { most }),
  );
}

sharedTest(
  "the losses that shapes are balanced by are those of the whole window",
  () => follow("depth_width_fkl", "subgroup8", { accumulation: 2, most: 2 }),
);

const MISTAKES: readonly [string, string, Mistake, string][] = [
  ["no balancing", "depth_soft_ce", { min: 1, max: 1 }, "factor of shape 1"],
  ["no bound of the factors", "depth_width_fkl", { max: 1e9 }, "factor of shape"],
  ["the other divergence", "depth_width_fkl", { divergence: "soft_ce" }, "loss of shape 1"],
  ["all experts", "depth_soft_ce", { topK: 3 }, "loss of shape 0"],
  ["no weight decay", "depth_soft_ce", { weightDecay: 0 }, ""],
];

for (const [what, name, mistake, where] of MISTAKES) {
  sharedTest(`the comparison of several shapes notices ${what}`, async () => {
    let message = "";
    try {
      await follow(name, "subgroup8", { mistake });
    } catch (error) {
      message = (error as Error).message;
    }
    if (message === "") throw new Error("nothing was noticed");
    assertStringIncludes(message, where);
  });
}
