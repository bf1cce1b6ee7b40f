/** Models whose weights are in blocks on the GPU: what is quantised, that everything else follows from those values, and that runs go on. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { computedIdentity, modelIdentity } from "../../src/distill/inputs/identity.ts";
import { Model, putPieces } from "../../src/distill/inputs/models.ts";
import { openStudent } from "../../src/distill/inputs/prepare.ts";
import { folderDtype, writeBase } from "../../src/distill/export/exports.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { toFloat32 } from "../../src/formats/dtype.ts";
import { openModel } from "../../src/formats/open_model.ts";
import { QuantisedWeight, type QuantizeDtype } from "../../src/formats/quantised/quantiser.ts";
import { dequantizeNf4, quantizeNf4 } from "../../src/formats/nf4.ts";
import { DEFAULT_DEVICE } from "../../src/gpu/description.ts";
import { byteLength, type DType } from "../../src/tensor/weight_storage.ts";
import { assertWithin, randomArray } from "../tensor/harness.ts";
import { writeBitsAndBytes } from "./tiny_bitsandbytes.ts";
import { writeTinyGguf } from "./tiny_gguf.ts";
import {
  openTiny,
  type RecipeChanges,
  type TinyFiles,
  tinyRecipe,
  tinySetup,
  withTiny,
} from "./tiny_model.ts";
import { heldMetrics, runHere } from "./tiny_run.ts";

const LINEAR = /\.(q|k|v|o|gate|up|down)_proj\.weight$/;

async function valuesOf(model: Model, name: string): Promise<Float32Array> {
  const { dtype, data } = await model.read(name);
  return toFloat32(dtype, data);
}

Deno.test("student.quantize quantises the linear layers and leaves embedding, norms and head as they are", () =>
  withTiny(async (files) => {
    const model = await openStudent(tinyRecipe(files, { student: { model: "teacher", quantize: "nf4" } }));
    for (const [name, { dtype }] of model.tensors()) {
      assertEquals(
        [model.gpuDtype(name), dtype],
        LINEAR.test(name) ? ["nf4", "f32"] : ["bf16", "bf16"],
        name,
      );
      const source = toFloat32("bf16", (await model.source.read(name)).data);
      const expected = LINEAR.test(name) ? dequantizeNf4(quantizeNf4(source), 0, source.length) : source;
      assertEquals(await valuesOf(model, name), expected, name);
    }
    // Rows that begin within a block.
    const name = "model.layers.1.mlp.down_proj.weight";
    const { data } = await model.read(name, 3, 5);
    assertEquals(data, (await model.read(name)).data.slice(3 * 44, 8 * 44));
    model.close();
  }, { dtype: "bf16" }));

Deno.test("Q8_0 and Q4_0 take layers whose rows are whole blocks", () =>
  withTiny(async (files) => {
    for (const quantize of ["q8_0", "q4_0"] as const) {
      const model = await openStudent(tinyRecipe(files, { student: { model: "teacher", quantize } }));
      const dtype = (part: string) => model.gpuDtype(`model.layers.0.${part}.weight`);
      // Rows of 32 values, and of 44.
      assertEquals([dtype("mlp.up_proj"), dtype("mlp.down_proj")], [quantize, "f32"]);
      model.close();
    }
  }));

Deno.test("a weight is quantised alike in whatever pieces it is read", async () => {
  const [rows, width] = [150, 100];
  const whole = randomArray(rows * width, 1) as Float32Array<ArrayBuffer>;
  for (const dtype of ["nf4", "nf4-double"] as const) {
    let most = 0;
    const weight = () =>
      new QuantisedWeight(dtype, [rows, width], (first, count) => {
        most = Math.max(most, first + count);
        return Promise.resolve(whole.slice(first * width, (first + count) * width));
      });
    const all = await weight().values(0, rows);
    assertWithin(all, whole, 0.16, dtype);
    assertEquals(await weight().values(77, 5), all.subarray(77 * width, 82 * width));
    assertEquals(most, 150);
    const laidOut = await weight().laidOut(0, rows);
    // 16 rows are 25 blocks of NF4; 512 rows are 25 groups of 32, so here the second piece begins none.
    if (dtype === "nf4") {
      const step = 16 * width / 64 * 36;
      assertEquals(await weight().laidOut(16, 32), laidOut.slice(step, 3 * step));
    }
  }
});

/** Runs of a few steps: what was measured and, of one with an adapter that can be merged, the merged weights. */
async function shortRun(files: TinyFiles, name: string, student: RecipeChanges["student"], type: string) {
  const events: RunEventBody[] = [];
  const recipe = tinyRecipe(files, {
    student: student!,
    adapter: { type },
    train: { steps: 3, evaluateEvery: 0, checkpointEvery: 0 },
    output: { merged: true },
  });
  const folder = `${files.folder}/${name}`;
  const result = await runHere(recipe, folder, {}, events);
  return { folder, result, metrics: heldMetrics(events) };
}

const CUT = { model: "teacher", layers: [0, 2] };

// Those that begin from the weight, those that need it in the step, and one that does neither.
for (const type of ["lora", "pissa", "olora", "dora", "hira"]) {
  Deno.test(`${type} over NF4 is ${type} over the values that base/ holds`, () =>
    withTiny(async (files) => {
      const quantised = await shortRun(files, "quantised", { ...CUT, quantize: "nf4" }, type);
      const plain = await shortRun(files, "plain", { model: `${quantised.folder}/base` }, type);
      if (type === "hira") {
        // Of two products, a weight in blocks is always the one that is added last.
        const after = ({ result }: typeof plain) => [result.heldOut.after!];
        assertWithin(after(quantised), after(plain), 1e-6, "held-out loss");
        return;
      }
      assertEquals(quantised.result.heldOut, plain.result.heldOut);
      assertEquals(quantised.metrics, plain.metrics);
      const merged = (folder: string) => Deno.readFile(`${folder}/merged/model.safetensors`);
      assertEquals(await merged(quantised.folder), await merged(plain.folder));
    }));
}

Deno.test("a run over quantised weights that was stopped goes on bit for bit, and to no other quantisation", () =>
  withTiny(async (files) => {
    const recipe = (quantize: QuantizeDtype) =>
      tinyRecipe(files, {
        student: { ...CUT, quantize },
        teacher: { quantize: "q8_0" },
        train: { steps: 6, checkpointEvery: 0 },
      });
    const adapter = (folder: string) => Deno.readFile(`${folder}/adapter/adapter_model.safetensors`);
    const [whole, parts] = [`${files.folder}/whole`, `${files.folder}/parts`];
    await runHere(recipe("nf4-double"), whole);
    await runHere(recipe("nf4-double"), parts, { control: (step) => step === 3 ? "stop" : "run" });
    await assertRejects(() => runHere(recipe("nf4"), parts, { resume: true }), InputError, "recipe");
    await runHere(recipe("nf4-double"), parts, { resume: true });
    assertEquals(await adapter(parts), await adapter(whole));
  }));

Deno.test("the plan counts the bytes of blocks, and models that are quantised alike share them", () =>
  withTiny(async (files) => {
    const bytes = async (changes: RecipeChanges) => {
      using setup = await openTiny(tinyRecipe(files, changes));
      const { bytesByCategory } = planTraining(setup, DEFAULT_DEVICE).plan;
      return ["teacher weights", "student weights"].map((name) => bytesByCategory.get(name) ?? 0);
    };
    const teacher = await Model.open(files.teacher, { category: "weights" });
    /** Of layers 0 and 2, or of all. */
    const linear = (dtype: DType, layers = /layers\.[02]\./) =>
      [...teacher.tensors()].filter(([name]) => LINEAR.test(name) && layers.test(name))
        .reduce((sum, [, { shape }]) => sum + byteLength({ shape, dtype }), 0);
    const whole = [...teacher.tensors().values()].reduce(
      (sum, { shape }) => sum + byteLength({ shape, dtype: "f32" }),
      0,
    );
    teacher.close();
    const rotary = 64 * 8 * 4;
    // What is not quantised is shared with the teacher.
    for (const quantize of ["nf4", "nf4-double"] as const) {
      assertEquals(await bytes({ student: { ...CUT, quantize } }), [whole + rotary, linear(quantize)]);
    }
    const alike = await bytes({ teacher: { quantize: "nf4" }, student: { ...CUT, quantize: "nf4" } });
    const all = /./;
    assertEquals(alike, [whole + rotary - linear("f32", all) + linear("nf4", all), 0]);
    const others = await bytes({
      teacher: { quantize: "q8_0" },
      student: { ...CUT, quantize: "nf4", dtype: "f32" },
    });
    assertEquals(others[1], linear("nf4"));
  }));

Deno.test("dtype with quantize says what base/ and merged/ hold, and what the other tensors are", () =>
  withTiny(async (files) => {
    for (const [dtype, written] of [[undefined, "f32"], ["bf16", "bf16"], ["f16", "f16"]] as const) {
      const recipe = tinyRecipe(files, { student: { ...CUT, quantize: "nf4", ...(dtype ? { dtype } : {}) } });
      const student = await openStudent(recipe);
      assertEquals(folderDtype(student), written);
      assertEquals(student.gpuDtype("model.norm.weight"), written);
      const folder = `${files.folder}/${written}`;
      await Deno.mkdir(folder);
      await writeBase(folder, { student, recipe });
      const base = await openModel(`${folder}/base`);
      for (const [name, { dtype }] of base.tensors) {
        assertEquals(dtype, written.toUpperCase());
        const read = await base.read(name);
        const tolerance = written === "f32" ? 0 : written === "f16" ? 2 ** -11 : 2 ** -8;
        assertWithin(toFloat32(read.dtype, read.data), await valuesOf(student, name), 4 * tolerance, name);
      }
      base.close();
      student.close();
    }
  }));

Deno.test("a GGUF file's blocks stay on the GPU, with the values that they had as numbers", () =>
  withTiny(async (files) => {
    for (const storage of ["Q8_0", "Q4_0"] as const) {
      const path = `${files.folder}/${storage}.gguf`;
      await writeTinyGguf(files.teacher, path, storage);
      const model = await Model.open(path, { category: "weights" });
      const blocks = [...model.tensors().keys()].filter((name) => /^q[48]_0$/.test(model.gpuDtype(name)));
      assert(blocks.length > 10, String(blocks));
      for (const name of blocks) {
        assertEquals(await valuesOf(model, name), toFloat32("f32", (await model.source.read(name)).data));
      }
      const trained = await shortRun(files, `from ${storage}`, { model: path, quantize: "nf4" }, "lora");
      const plain = await shortRun(files, `plain ${storage}`, { model: `${trained.folder}/base` }, "lora");
      assertEquals(trained.metrics, plain.metrics);
      const student = await openStudent(tinyRecipe(files, { student: { model: path, quantize: "nf4" } }));
      for (const name of blocks) assertEquals(student.gpuDtype(name), model.gpuDtype(name), name);
      assertEquals(student.gpuDtype("model.layers.0.mlp.down_proj.weight"), "nf4");
      student.close();
      model.close();
    }
  }));

Deno.test("a folder that bitsandbytes has quantised is trained as the same weights quantised here", () =>
  withTiny(async (files) => {
    for (const quantize of ["nf4", "nf4-double"] as const) {
      const path = `${files.folder}/${quantize}`;
      await writeBitsAndBytes(files.teacher, path, quantize === "nf4-double");
      const here = await shortRun(files, `here ${quantize}`, { model: files.teacher, quantize }, "lora");
      const stored = await shortRun(files, `stored ${quantize}`, { model: path }, "lora");
      assertEquals(stored.metrics, here.metrics);
      assertEquals(stored.result.paths.base, undefined, "PEFT loads its adapter on that folder");
    }
  }));

Deno.test("layers that are quantised cannot be trained themselves", () =>
  withTiny(async (files) => {
    const recipe = tinyRecipe(files, { student: { ...CUT, quantize: "nf4", train: ["q_proj"] } });
    await assertRejects(
      () => tinySetup(recipe),
      InputError,
      'student.train: "q_proj" means model.layers.0.self_attn.q_proj.weight, which is nf4 on the GPU',
    );
    using setup = await tinySetup(
      tinyRecipe(files, { student: { ...CUT, quantize: "nf4", train: ["norms"] } }),
    );
    assert(setup.trainables.layout.has("model.norm.weight"));
  }));

Deno.test("a weight is the same on the GPU in however many pieces it is uploaded", () =>
  withTiny(async (files) => {
    const name = "model.layers.1.mlp.down_proj.weight";
    for (const quantize of ["nf4", "q8_0", undefined] as const) {
      const model = await openStudent(
        tinyRecipe(files, { student: { model: "teacher", ...(quantize ? { quantize } : {}), dtype: "f16" } }),
      );
      const { shape } = model.tensors().get(name)!;
      const dtype = model.gpuDtype(name);
      const uploaded = async (pieceBytes: number) => {
        const held = new Uint8Array(byteLength({ shape, dtype }));
        let writes = 0;
        const named = model.specs.resolve(name).name;
        const pieces = model.pieces(`${model.specs.prefix}${named}`, shape, pieceBytes);
        await putPieces(pieces, ({ at }, bytes) => {
          held.set(bytes, at);
          writes++;
        });
        return { held, writes };
      };
      const [whole, parts] = [await uploaded(1e6), await uploaded(2000)];
      assertEquals([whole.writes, parts.writes > 1], [1, true], dtype);
      assertEquals(parts.held, whole.held, dtype);
      model.close();
    }
  }));

Deno.test("what is computed with quantised weights is told apart from what is computed with the file's", () =>
  withTiny(async (files) => {
    const identity = async (quantize?: QuantizeDtype) => {
      const model = await Model.open(files.teacher, { category: "weights", quantize });
      const found = await computedIdentity(model);
      model.close();
      return found;
    };
    const found = [await identity(), await identity("nf4"), await identity("q8_0")];
    assertEquals(new Set(found).size, 3);
    const model = await Model.open(files.teacher, { category: "weights" });
    assertEquals(found[0], await modelIdentity(model));
    model.close();
  }));

Deno.test("a recipe with another word for quantize is refused", () =>
  withTiny((files) => {
    assertThrows(
      () => tinyRecipe(files, { student: { ...CUT, quantize: "int4" as QuantizeDtype } }),
      InputError,
      "student.quantize",
    );
    return Promise.resolve();
  }));

Deno.test("NaN in a weight is found before it is quantised", () =>
  withTiny(async (files) => {
    const model = await openStudent(tinyRecipe(files, { student: { model: "teacher", quantize: "nf4" } }));
    const { source } = model;
    const read = source.read.bind(source);
    source.read = async (name) => {
      const tensor = await read(name);
      tensor.data[70] = NaN;
      return tensor;
    };
    const name = "model.layers.0.self_attn.q_proj.weight";
    await assertRejects(
      () => model.read(name),
      InputError,
      `1 values of tensor ${name} (the first at 70) are not finite numbers`,
    );
    model.close();
  }));
