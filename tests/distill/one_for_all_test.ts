/** Runs that train several shapes of a student at once, and what can be taken from them. */
// @ts-types="../../types/std_assert.d.ts"
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertGreater,
  assertLess,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import { InputError } from "../../src/base/errors.ts";
import { evaluateModel } from "../../src/distill/evaluate/evaluate_model.ts";
import { exportShape } from "../../src/distill/export/export_shape.ts";
import { modelIdentity } from "../../src/distill/inputs/identity.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import {
  allShapes,
  fullShape,
  shapeIndex,
  shapeName,
  shapeNamed,
  shapeSpace,
  smallestShape,
} from "../../src/distill/inputs/shape_space.ts";
import { shapeWidthOf } from "../../src/distill/inputs/width_cut.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { sandwich } from "../../src/distill/program/shapes/sandwich.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import type { Recipe, RecipeInput } from "../../src/distill/recipe/recipe.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { writeShapeFile } from "../../src/formats/shape_file.ts";
import { layerName } from "../../src/models/context.ts";
import { Registry } from "../../src/registry/registry.ts";
import { packBatch } from "../../src/text/packing.ts";
import { assertWithin, modelTest, randomArray } from "../tensor/harness.ts";
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

const registry = new Registry().addAll(builtins);
const LAYERS = 4;

type OneForAllInput = NonNullable<NonNullable<RecipeInput["train"]>["oneForAll"]>;

/** Writes a shape file of every layer with one of two groups and some channels, and biases. */
async function writeWidth(files: TinyFiles, keptLayers = [0, 1, 2, 3]): Promise<string> {
  const path = `${files.folder}/width.json`;
  const opened = await Model.open(files.teacher, { category: "weights" });
  const identity = await modelIdentity(opened);
  opened.close();
  const bias = (seed: number) => Float64Array.from(randomArray(32, seed, 0.1));
  await writeShapeFile(path, {
    limbeck: "shape",
    version: 1,
    model: { path: files.teacher, identity, layers: LAYERS },
    keptLayers,
    width: shapeWidthOf({
      groups: keptLayers.map((layer) => [layer % 2]),
      channels: keptLayers.map((layer) => Array.from({ length: 30 - layer }, (_, i) => i + layer)),
      compensation: keptLayers.map((layer) => ({ attention: bias(layer + 1), mlp: bias(layer + 50) })),
    }),
  });
  return path;
}

async function recipeOf(
  files: TinyFiles,
  changes: Partial<RecipeInput["train"]> = {},
  options: Record<string, unknown> = {},
): Promise<Recipe> {
  return tinyRecipe(files, {
    student: {
      model: "teacher",
      shapes: { layers: [[0, 1, 3], [1, 3]], widths: [{ width: 0.6, shape: await writeWidth(files) }] },
    },
    adapter: { type: "shape-gated-lora", rank: 2, options: { experts: 3, ...options } },
    train: { steps: 6, checkpointEvery: 2, evaluateEvery: 0, ...changes },
  });
}

Deno.test("sandwich() has the whole model, different shapes at random, and the smallest", () => {
  const space = shapeSpace([[0, 1, 2, 3], [0, 3], [0, 1, 3]], [{ share: 0.5 }, { share: 1 }]);
  assertEquals(space.depths.map((kept) => kept.length), [4, 3, 2]);
  const seen = new Map<string, number>();
  for (let step = 0; step < 300; step++) {
    const shapes = sandwich(space, 2, 7, step);
    assertEquals(shapes, sandwich(space, 2, 7, step));
    assertEquals(shapes[0], fullShape(space));
    assertEquals(shapes[3], smallestShape(space));
    const names = shapes.map((shape) => shapeName(shape, space));
    assertEquals(new Set(names).size, 4, `${names}`);
    for (const name of names.slice(1, 3)) seen.set(name, (seen.get(name) ?? 0) + 1);
  }
  // Four others, each in half of the steps.
  assertEquals(seen.size, 4);
  for (const count of seen.values()) assert(count > 110 && count < 190, `${[...seen]}`);
  assertEquals(sandwich(space, 9, 1, 0).length, 6);
  assertEquals(sandwich(shapeSpace([[0, 1], [0]], [{ share: 1 }]), 2, 1, 0).map((s) => s.layers), [[0, 1], [
    0,
  ]]);
});

Deno.test("shapeIndex() counts depths and widths, and knows what is no shape of the run", () => {
  const space = shapeSpace([[0, 1, 2], [0, 2]], [{ share: 1 }, { share: 0.75 }]);
  assertEquals(allShapes(space).map((shape) => shapeIndex(shape, space)), [0, 1, 2, 3]);
  assertEquals(shapeIndex({ layers: [0, 2] }, space), 2);
  assertEquals(shapeIndex({ layers: [0, 1] }, space), -1);
});

Deno.test("shapeNamed() finds a shape by what people call it, or says which there are", () => {
  const space = shapeSpace([[0, 1, 2], [0, 2]], [{ share: 1 }, { share: 0.75 }]);
  assertEquals(shapeNamed("depth=2,width=0.75", space), { layers: [0, 2], width: 1 });
  assertEquals(shapeNamed("width=0.75", space), { layers: [0, 1, 2], width: 1 });
  assertEquals(shapeNamed(" depth = 2 ", space), { layers: [0, 2], width: 0 });
  for (const wrong of ["depth=1", "width=0.5", "depth=2,depth=2", "2", "", "height=2"]) {
    const error = assertThrows(() => shapeNamed(wrong, space), InputError) as InputError;
    assertStringIncludes(error.message, "is no shape of the run");
    assertStringIncludes(error.hint!, "depths 3, 2 and the widths 1, 0.75");
  }
});

const BATCH = packBatch([tinySample(37, 20, 1), tinySample(20, 5, 2)], 64);

for (const activationCheckpointing of ["off", "on"] as const) {
  modelTest(
    `nothing of a layer that is left out reaches the gradients, activations checkpointed: ${activationCheckpointing}`,
    (gpu) =>
      withTiny(async (files) => {
        const recipe = await recipeOf(files, { activationCheckpointing }, { noise: false });
        using setup = await tinySetup(recipe);
        const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
        const { layout } = setup.trainables;
        const flat = new Float32Array(layout.total);
        layout.scatter(
          flat,
          new Map(layout.parameters.map((p, i) => [p.name, randomArray(p.count, i + 1, 0.2)])),
        );
        trainer.setState(flat);
        const { executable } = trainer;
        const shapes = [fullShape(setup.oneForAll!.space), { layers: [1, 3], width: 1 }];
        const weight = `${setup.student.specs.prefix}model.layers.2.mlp.up_proj.weight`;
        const { runSlice } = executable;
        const gradients = async (of = shapes) => {
          await trainer.step(0, [BATCH], of);
          const found = await trainer.readGradients();
          trainer.setState(flat);
          const [m] = await trainer.collect();
          assertEquals(m!.nonFinite && executable.runSlice === runSlice, false);
          return found;
        };
        const isOf = (layer: number) => (name: string) => name.includes(`.layers.${layer}.`);
        const left = (all: Map<string, Float32Array>, keep: (name: string) => boolean) =>
          new Map([...all].filter(([name]) => keep(name)));
        const expected = await gradients();

        // Of layers that are left out only the whole model speaks.
        const ofWhole = await gradients(shapes.slice(0, 1));
        for (const layer of [0, 2]) {
          assertEquals(left(expected, isOf(layer)), left(ofWhole, isOf(layer)), `layer ${layer}`);
          assert([...left(expected, isOf(layer)).values()].every((g) => g.some((v) => v !== 0)));
        }

        // Their kernels run, over weights of which one is NaN: nothing of it may reach what is outside.
        const values = (await executable.read([weight])).get(weight)!.data as Float32Array;
        executable.runSlice = function (block, from, to, without) {
          if (block !== "shape") return runSlice.call(this, block, from, to, without);
          executable.write(weight, new Float32Array(values.length).fill(NaN));
          runSlice.call(this, block, from, to);
          executable.write(weight, values);
        };
        const all = await gradients();
        assert([...left(all, isOf(2)).values()].some((g) => g.some(Number.isNaN)), "the layer did not run");
        const isKept = (name: string) => !isOf(0)(name) && !isOf(2)(name);
        assertEquals(left(all, isKept), left(expected, isKept));
        trainer.destroy();
      }, { layers: LAYERS }),
  );
}

modelTest(
  "the kernels of a layer that is left out do not run, forwards or backwards",
  (gpu) =>
    withTiny(async (files) => {
      using setup = await tinySetup(await recipeOf(files));
      const { plan } = planTraining(setup, gpu.description);
      const { dispatches } = plan.blocks.get("shape")!;
      const flops = (of: typeof dispatches) => dispatches.length && of.reduce((sum, d) => sum + d.flops, 0);
      const ofLayer = (layer: number) => dispatches.filter((d) => d.layer === layerName("student", layer));
      const outside = dispatches.filter((d) => d.layer === undefined);
      for (let layer = 0; layer < LAYERS; layer++) {
        const backward = ofLayer(layer).filter((d) => / backward|accumulate/.test(`${d.path} ${d.kernel}`));
        // One launch may make several products, one for each z.
        const made = backward.reduce(
          (sum, { kernel, groups }) => sum + (/, several$/.test(kernel) ? groups[2] : 1),
          0,
        );
        assertGreater(made, 20, `layer ${layer}`);
      }
      // So do the gradients of its parameters: nothing outside is done for each of them.
      assertLess(outside.length, 60);
      // All products with weights are a layer's own or the head's.
      const products = outside.filter((d) => d.kernel.startsWith("matmul") && !d.path.includes("head"));
      assertLess(flops(products), 0.02 * flops(ofLayer(1)));
    }, { layers: LAYERS }),
);

/** A parameter, by how many values it has. */
interface Named {
  readonly name: string;
  readonly count: number;
}

/** Three shapes with LoRAs of their own, which learn from a frozen teacher of another size. */
async function byTeacher(files: TinyFiles, changes: RecipeChanges = {}): Promise<Recipe> {
  const teacher = `${files.folder}/other`;
  await writeTinyModel(teacher, { layers: 2, hiddenSize: 48, seed: 5 });
  return tinyRecipe(files, {
    teacher: { model: teacher },
    student: { model: files.teacher, shapes: { layers: [[0, 1, 3], [1, 3]] } },
    adapter: { type: "lora-by-shape", rank: 2 },
    ...changes,
    train: { oneForAll: { target: "teacher", balance: { min: 1, max: 1 } }, ...changes.train },
  });
}

modelTest(
  "a shape with a LoRA of its own and a frozen teacher gets the gradients that it gets alone",
  (gpu) =>
    withTiny(async (files) => {
      const gradientsOf = async (recipe: Recipe, values: (p: Named) => Float32Array) => {
        using setup = await tinySetup(recipe);
        const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
        assertEquals(gpu.allocatedBytes, trainer.planned.plan.totalBytes);
        trainer.executable.poison();
        const { layout } = setup.trainables;
        const flat = new Float32Array(layout.total);
        layout.scatter(flat, new Map(layout.parameters.map((p) => [p.name, values(p)])));
        trainer.setState(flat);
        await trainer.step(0, [BATCH]);
        const [gradients, [metrics]] = [await trainer.readGradients(), await trainer.collect()];
        trainer.destroy();
        return { gradients, metrics: metrics! };
      };
      const random = ({ name, count }: Named) =>
        randomArray(count, [...name].reduce((sum, c) => sum * 31 + c.charCodeAt(0) & 0xffff, 1), 0.3);
      const objective = [{ loss: "soft-cross-entropy" }];
      const recipe = await byTeacher(files, { objective: [{ ...objective[0]!, weight: 0 }] });
      const { gradients, metrics } = await gradientsOf(recipe, random);
      assertEquals(metrics.shapes!.map(({ layers, factor }) => [layers.length, factor]), [[4, 1], [3, 1], [
        2,
        1,
      ]]);

      // Row k of all LoRAs is that of the k-th shape.
      const row = (values: Float32Array, k: number) =>
        values.subarray(k * values.length / 3, (k + 1) * values.length / 3);
      const kept = [0, 1, 3];
      const ofSource = (name: string) =>
        name.replace(/layers\.(\d)/, (_, i) => `layers.${kept[i]}`).replace("lora_", "lora_by_shape_");
      const alone = await gradientsOf(
        tinyRecipe(files, {
          teacher: { model: recipe.teacher.model },
          student: { model: files.teacher, layers: kept },
          ...{ objective, adapter: { type: "lora", rank: 2 } },
        }),
        ({ name, count }) => row(random({ name: ofSource(name), count: 3 * count }), 1),
      );
      assertAlmostEquals(metrics.shapes![1]!.loss, alone.metrics.loss, 1e-5);
      assertGreater(alone.gradients.size, 20);
      for (const [name, expected] of alone.gradients) {
        const found = row(gradients.get(ofSource(name))!, 1);
        const size = Math.max(...expected.map(Math.abs));
        assertGreater(size, 1e-4, name);
        assertWithin(found, expected, 1e-4 * size, name);
      }
      for (const [name, all] of gradients) {
        assert(row(all, 0).every((g) => g === 0), `the whole model has nothing to learn: ${name}`);
        assertEquals(row(all, 1).every((g) => g === 0), name.includes(".layers.2."), name);
      }

      // The whole student would be another target.
      const whole = { ...recipe, objective: [{ ...recipe.objective[0]!, loss: "cross-entropy", weight: 1 }] };
      whole.train = { ...recipe.train, oneForAll: { ...recipe.train.oneForAll!, target: "whole" } };
      const other = await gradientsOf(whole, random);
      assertGreater(Math.abs(other.metrics.shapes![1]!.loss - metrics.shapes![1]!.loss), 1e-2);
    }, { layers: LAYERS }),
);

Deno.test("a run whose shapes learn from a frozen teacher is resumed bit for bit, and leaves the whole model as it was", () =>
  withTiny(async (files) => {
    const recipe = await byTeacher(files, {
      objective: [{ loss: "soft-cross-entropy", weight: 0 }],
      train: {
        steps: 4,
        evaluateEvery: 0,
        learningRate: 3e-2,
        oneForAll: { target: "teacher", random: 0, balance: { min: 1, max: 1 } },
      },
    });
    const [whole, folder] = [`${files.folder}/whole`, `${files.folder}/run`];
    const events: RunEventBody[] = [];
    await runHere(recipe, whole, {}, events);
    const control = (step: number) => step === 2 ? "stop" as const : "run" as const;
    assertEquals((await runHere(recipe, folder, { control })).status, "paused");
    assertEquals((await runHere(recipe, folder, { resume: true })).steps, 4);
    const state = (run: string) => Deno.readFile(`${run}/checkpoints/step-000004/state.safetensors`);
    assertEquals(await state(folder), await state(whole));

    const [before, after] = events.flatMap((event) => event.type === "shapes" ? [event.shapes] : []);
    const [full, never, smallest] = [0, 1, 2].map((i) => [before![i]!.loss!, after![i]!.loss!] as const);
    assertEquals(full![1], full![0]);
    // Nothing trains a shape that no step has.
    assertEquals(never![1], never![0]);
    assertGreater(Math.abs(smallest![1] - smallest![0]), 1e-3);
    await exportShape({ folder: whole, recipe, registry, shape: "depth=2" }, `${files.folder}/2`, "merged", {
      storage: "F32",
      name: "tiny",
    });
    const options = { data: files.heldOut, registry, contextLength: 64 };
    const exported = await evaluateModel({ ...options, model: `${files.folder}/2` });
    assertAlmostEquals(exported.loss, smallest![1], 1e-4);
  }, { layers: LAYERS }));

Deno.test("where shapes learn from the teacher, the whole model does too unless the objective says otherwise", () => {
  const recipe = (objective: RecipeInput["objective"], oneForAll: OneForAllInput = {}): RecipeInput => ({
    teacher: { model: "a" },
    student: { model: "teacher", shapes: { layers: [[0, 1]] } },
    data: { train: "d" },
    ...(objective ? { objective } : {}),
    train: { oneForAll: { target: "teacher", ...oneForAll } },
  });
  const losses = (input: RecipeInput) => parseRecipe(input).objective.map((t) => t.loss);
  assertEquals(losses(recipe(undefined)), ["soft-cross-entropy"]);
  assertEquals(losses(recipe(undefined, { loss: "forward-kl" })), ["forward-kl"]);
  assertEquals(losses(recipe(undefined, { target: "whole" })), ["cross-entropy"]);
  assertEquals(losses(recipe([{ loss: "reverse-kl", weight: 0 }])), ["reverse-kl"]);
  const refused: [RecipeInput["objective"], OneForAllInput, string][] = [
    [[{ loss: "forward-kl" }, { loss: "cross-entropy" }], {}, "must be one loss of the supervised tokens"],
    [[{ loss: "forward-kl", temperature: 2 }], {}, "must be one loss of the supervised tokens"],
    [[{ loss: "cross-entropy", weight: 0 }], { target: "whole" }, "must have a weight above 0"],
  ];
  for (const [objective, oneForAll, said] of refused) {
    assertStringIncludes(
      assertThrows(() => parseRecipe(recipe(objective, oneForAll)), InputError).message,
      said,
    );
  }
});

Deno.test("a run of several shapes is resumed bit for bit, and each shape can be taken from it", () =>
  withTiny(async (files) => {
    const recipe = await recipeOf(files, { accumulation: 2 });
    const [whole, folder] = [`${files.folder}/whole`, `${files.folder}/run`];
    const [expected, events]: [RunEventBody[], RunEventBody[]] = [[], []];
    await runHere(recipe, whole, {}, expected);
    const control = (step: number) => step === 3 ? "stop" as const : "run" as const;
    assertEquals((await runHere(recipe, folder, { control }, events)).status, "paused");
    assertEquals((await runHere(recipe, folder, { resume: true }, events)).steps, 6);
    assertEquals(heldMetrics(events), heldMetrics(expected));
    for (const file of ["checkpoints/step-000006/state.safetensors", "merged/model.safetensors"]) {
      assertEquals(await Deno.readFile(`${folder}/${file}`), await Deno.readFile(`${whole}/${file}`), file);
    }

    const measured = expected.flatMap((event) => event.type === "shapes" ? [event] : []);
    assertEquals(measured.map(({ step, shapes }) => [step, shapes.length]), [[0, 6], [6, 6]]);
    for (const [i, { name, loss, parameters }] of measured[1]!.shapes.entries()) {
      assertLess(loss!, measured[0]!.shapes[i]!.loss!, name);
      // One of a depth, one of a width, and one of both.
      if (![1, 2, 5].includes(i)) continue;
      const run = { folder: whole, recipe, registry, shape: name };
      const gguf = { storage: "F32", name: "tiny" } as const;
      await exportShape(run, `${files.folder}/${name}`, "merged", gguf);
      const options = { data: files.heldOut, registry, contextLength: 64 };
      const alone = await evaluateModel({ ...options, model: `${files.folder}/${name}` });
      assertAlmostEquals(alone.loss, loss!, 1e-4, name);
      const model = await Model.open(`${files.folder}/${name}`, { category: "weights" });
      const biases = [...model.architecture.tensors].filter(([tensor]) => tensor.endsWith(".bias"));
      const size = biases.reduce((sum, [, [length]]) => sum + length!, 0);
      assertEquals(name.endsWith("width=1"), size === 0, name);
      // A narrower layer is filled up with zeros to the widest.
      assertGreater(model.architecture.parameterCount - size, parameters - 1, name);
      model.close();
      if (i !== 5) continue;
      // No file is begun that cannot be ended: llama.cpp does not know this tokenizer.
      await assertRejects(() => exportShape(run, `${files.folder}/small.gguf`, "gguf", gguf), InputError);
      assertEquals([...Deno.readDirSync(files.folder)].filter(({ name }) => /small/.test(name)), []);
      await exportShape(run, `${files.folder}/plain`, "peft-plain", gguf);
      const config = JSON.parse(await Deno.readTextFile(`${files.folder}/plain/adapter_config.json`));
      assertEquals(config.base_model_name_or_path, `${files.folder}/plain/base`);
      const file = await SafetensorsFile.open(
        await openFile(`${files.folder}/plain/adapter_model.safetensors`),
      );
      assertEquals(file.tensors.size, 2 * 7 * 2);
      file.close();
      const base = await evaluateModel({ ...options, model: `${files.folder}/plain/base` });
      assertAlmostEquals(base.loss, measured[0]!.shapes[i]!.loss!, 1e-4);
    }
    const error = await assertRejects(
      () =>
        exportShape({ folder: whole, recipe, registry, shape: "depth=1" }, `${files.folder}/none`, "merged", {
          storage: "F32",
          name: "none",
        }),
      InputError,
    );
    assertStringIncludes(error.message, '"depth=1" is no shape of the run');
    assertThrows(() => Deno.statSync(`${files.folder}/none`), Deno.errors.NotFound);

    // Another cut under the same name is another student.
    await writeWidth(files);
    const other = JSON.parse(await Deno.readTextFile(`${files.folder}/width.json`));
    other.width.channels[0] = [0];
    await Deno.writeTextFile(`${files.folder}/width.json`, JSON.stringify(other));
    await assertRejects(
      () => runHere(recipe, folder, { resume: true }),
      InputError,
      "student's shapes",
    );
  }, { layers: LAYERS }));

const BAD: readonly [what: string, change: (recipe: RecipeInput) => void, said: string][] = [
  ["nothing beside the whole", (r) => r.student.shapes = {}, "student.shapes: has no shape beside the whole"],
  [
    "two of one depth",
    (r) => r.student.shapes = { layers: [[0], [1]] },
    "student.shapes.layers.1: has as many layers as another",
  ],
  [
    "a width twice",
    (r) => r.student.shapes = { widths: [{ width: 0.5, shape: "a" }, { width: 0.5, shape: "b" }] },
    "student.shapes.widths.1.width: is there already",
  ],
  ["layers beside shapes", (r) => r.student.layers = [0], "student.shapes: are shapes of a whole model"],
  ["trained tensors", (r) => r.student.train = ["norms"], "student.train: cannot be combined"],
  ["no adapter", (r) => r.adapter = "none", "adapter: is none, but the shapes"],
  [
    "another objective",
    (r) => r.objective = [{ loss: "forward-kl" }],
    "objective: must be cross-entropy alone",
  ],
  ["settings without shapes", (r) => delete r.student.shapes, "train.oneForAll: says how several shapes"],
  [
    "bounds the wrong way round",
    (r) => r.train!.oneForAll = { balance: { min: 3, max: 2 } },
    "train.oneForAll.balance.max: must be at least min",
  ],
  ["a cached teacher", (r) => r.teacher.cache = { topK: 4 }, "teacher.cache: has no use"],
];

for (const [what, change, said] of BAD) {
  Deno.test(`a recipe of several shapes is refused with ${what}`, () => {
    const recipe: RecipeInput = {
      teacher: { model: "a" },
      student: { model: "teacher", shapes: { layers: [[0, 1]] } },
      data: { train: "d" },
      train: { oneForAll: {} },
    };
    assertEquals(parseRecipe(structuredClone(recipe)).objective.map((t) => t.loss), ["cross-entropy"]);
    change(recipe);
    assertStringIncludes(assertThrows(() => parseRecipe(recipe), InputError).message, said);
  });
}

Deno.test("shapes that are none of the model are refused before anything begins", () =>
  withTiny(async (files) => {
    const refused = async (shapes: RecipeInput["student"]["shapes"], said: string) => {
      const recipe = tinyRecipe(files, {
        student: { model: "teacher", ...(shapes ? { shapes } : {}) },
        adapter: { type: "shape-gated-lora" },
      });
      const error = await assertRejects(() => runHere(recipe, `${files.folder}/run`), InputError);
      assertStringIncludes(error.message, said);
    };
    await refused({ layers: [[0, 4]] }, "names layer 4; the model has layers 0 to 3");
    await refused({ layers: [[0, 1, 2, 3]] }, "keeps every layer");
    const width = await writeWidth(files, [0, 1, 2]);
    await refused({ widths: [{ width: 0.5, shape: width }] }, "keeps 3 of 4 layers");
    const file = JSON.parse(await Deno.readTextFile(width));
    delete file.width;
    await Deno.writeTextFile(width, JSON.stringify(file));
    await refused({ widths: [{ width: 0.5, shape: width }] }, "cuts no heads or channels");
    file.model.identity = "0".repeat(64);
    await Deno.writeTextFile(width, JSON.stringify(file));
    await refused({ widths: [{ width: 0.5, shape: width }] }, "is the shape of another model");
    const head = tinyRecipe(files, {
      student: { model: "teacher", shapes: { layers: [[0, 1]] } },
      adapter: { type: "shape-gated-lora", targets: ["q_proj", "lm_head"] },
    });
    await assertRejects(() => runHere(head, `${files.folder}/run`), InputError, "the head of a student");
    const loss = tinyRecipe(files, {
      student: { model: "teacher", shapes: { layers: [[0, 1]] } },
      train: { oneForAll: { loss: "cross-entropy" } },
    });
    await assertRejects(
      () => runHere(loss, `${files.folder}/run`),
      InputError,
      "does not compare the logits",
    );
    assertEquals(allShapes(shapeSpace([[0, 1], [0]], [{ share: 1 }])).length, 2);
  }, { layers: LAYERS }));
