/** What the student's weights are rounded to, that `base/` holds just these, and that a run keeps what it began with. */
import { createHash } from "node:crypto";
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { checkpointName } from "../../src/distill/checkpoint/checkpoint.ts";
import { RunStudent } from "../../src/distill/checkpoint/run_student.ts";
import { folderDtype, writeBase } from "../../src/distill/export/exports.ts";
import type { Model, WeightStorage } from "../../src/distill/inputs/models.ts";
import { needsBase, openStudent } from "../../src/distill/inputs/prepare.ts";
import type { Recipe } from "../../src/distill/recipe/recipe.ts";
import { type FloatDtype, fromFloat32, toFloat32 } from "../../src/formats/dtype.ts";
import type { GgufStorage } from "../../src/formats/gguf/export.ts";
import { openModel } from "../../src/formats/open_model.ts";
import { Registry } from "../../src/registry/registry.ts";
import { builtins } from "../../plugins/mod.ts";
import { writeTinyGguf } from "./tiny_gguf.ts";
import { type RecipeChanges, type TinyFiles, tinyRecipe, withTiny } from "./tiny_model.ts";
import { runHere } from "./tiny_run.ts";

type Student = NonNullable<RecipeChanges["student"]>;

/** A student as it is trained and as it lies in base/, each beside its source. */
async function compared(
  files: TinyFiles,
  student: Student,
  fn: (tensor: { used: Values; written: Values | undefined; source: Values; name: string }) => void,
): Promise<{ storage: WeightStorage; dtype: FloatDtype; hasBase: boolean }> {
  const recipe = tinyRecipe(files, { student });
  const folder = await Deno.makeTempDir({ dir: files.folder });
  const model = await openStudent(recipe);
  await writeBase(folder, { student: model, recipe });
  const hasBase = needsBase(model);
  const base = hasBase ? await openModel(`${folder}/base`) : undefined;
  for (const name of model.tensors().keys()) {
    fn({
      name,
      used: await model.read(name),
      written: await base?.read(name),
      source: await model.source.read(model.storedName(name)),
    });
  }
  const { storage } = model;
  const dtype = folderDtype(model);
  base?.close();
  model.close();
  return { storage, dtype, hasBase };
}

type Values = Awaited<ReturnType<Model["read"]>>;

const rounded = (dtype: FloatDtype, { dtype: from, data }: Values) =>
  fromFloat32(dtype, toFloat32(from, data));

Deno.test("a cut f32 student and its base/ are the source to the last bit", () =>
  withTiny(async (files) => {
    const cut = { model: "teacher", layers: [0, 2] };
    const { dtype, hasBase } = await compared(files, cut, ({ name, used, written, source }) => {
      assertEquals([used, written], [source, source], name);
    });
    assertEquals([dtype, hasBase], ["f32", true]);
  }));

for (const dtype of ["f16", "bf16"] as const) {
  Deno.test(`student.dtype: ${dtype} rounds a student, cut or whole, and base/ holds just that`, () =>
    withTiny(async (files) => {
      for (const layers of [[0, 2], undefined]) {
        const student = { model: "teacher", dtype, ...(layers ? { layers } : {}) };
        const found = await compared(files, student, ({ name, used, written, source }) => {
          assertEquals(used.dtype, dtype);
          assertEquals(used.data, rounded(dtype, source), name);
          assertEquals(written, used, name);
        });
        assertEquals([found.dtype, found.hasBase], [dtype, true]);
      }
    }));
}

Deno.test("a 16-bit folder stays what it is, and student.dtype: f32 writes the same values in f32", () =>
  withTiny(async (files) => {
    const same = await compared(
      files,
      { model: "teacher" },
      ({ used, source }) => assertEquals(used, source),
    );
    assertEquals([same.storage, same.dtype, same.hasBase], ["exact", "bf16", false]);
    const wide = await compared(
      files,
      { model: "teacher", dtype: "f32", layers: [1] },
      ({ used, written, source }) => {
        assertEquals(used, source);
        assertEquals([written?.dtype, written?.data], ["f32", rounded("f32", source)]);
      },
    );
    assertEquals([wide.dtype, wide.hasBase], ["f32", true]);
    const f16 = await compared(files, { model: "teacher", dtype: "f16" }, ({ used, written, source }) => {
      assertEquals(used.data, rounded("f16", source));
      assertEquals(written, used);
    });
    assertEquals([f16.dtype, f16.hasBase], ["f16", true]);
  }, { dtype: "bf16" }));

Deno.test("of GGUF files, f32 matrices stay f32, and f16 or quantised ones are a model in f16", () =>
  withTiny(async (files) => {
    const student = async (storage: GgufStorage, dtype?: FloatDtype) => {
      const path = `${files.folder}/${storage}.gguf`;
      if (dtype === undefined) await writeTinyGguf(files.teacher, path, storage);
      return { model: path, ...(dtype ? { dtype } : {}) };
    };
    const exact = await compared(files, await student("F32"), ({ used, written, source }) => {
      assertEquals([used, written], [source, source]);
    });
    assertEquals([exact.storage, exact.dtype, exact.hasBase], ["exact", "f32", true]);
    for (const storage of ["F16", "Q8_0"] as const) {
      const half = await compared(files, await student(storage), ({ used, written, source }) => {
        assertEquals(used.data, rounded("f16", source));
        assertEquals(written, used);
      });
      assertEquals([half.storage, half.dtype, half.hasBase], ["half", "f16", true]);
      const wide = await compared(files, await student(storage, "f32"), ({ used, written, source }) => {
        assertEquals(used, source);
        assertEquals(written?.data, rounded("f32", source));
      });
      assertEquals([wide.dtype, wide.hasBase], ["f32", true]);
    }
  }));

Deno.test("a value that is too large for student.dtype is refused, and named", () =>
  withTiny(async (files) => {
    const student = await openStudent(tinyRecipe(files, { student: { model: "teacher", dtype: "f16" } }));
    const { source } = student;
    const read = source.read.bind(source);
    source.read = async (name) => {
      const tensor = await read(name);
      tensor.data[3] = 1e6;
      return tensor;
    };
    await assertRejects(
      () => student.read("model.norm.weight"),
      InputError,
      "1 values of tensor model.norm.weight (the first at 3) are too large for f16",
    );
    student.close();
  }));

/** Makes a checkpoint one of those that do not say what the student's weights were rounded to. */
async function forgetStorage(folder: string): Promise<void> {
  const state = JSON.parse(await Deno.readTextFile(`${folder}/state.json`));
  assert("storage" in state);
  delete state.storage;
  const text = JSON.stringify(state);
  await Deno.writeTextFile(`${folder}/state.json`, text);
  const manifest = JSON.parse(await Deno.readTextFile(`${folder}/manifest.json`));
  const sha256 = createHash("sha256").update(text).digest("hex");
  manifest.files["state.json"] = { bytes: text.length, sha256 };
  await Deno.writeTextFile(`${folder}/manifest.json`, JSON.stringify(manifest));
}

/** Makes a run in a folder begin as one of before: what is left of its only checkpoint says nothing of the student's weights. */
async function beginBefore(folder: string): Promise<void> {
  const path = `${folder}/checkpoints/${checkpointName(0)}`;
  await Deno.mkdir(path, { recursive: true });
  await Deno.writeTextFile(`${path}/state.json`, "{}");
}

Deno.test("a run goes on with the weights that it began with, those of before with 16 bits", () =>
  withTiny(async (files) => {
    const recipe: Recipe = tinyRecipe(files, { train: { steps: 6, checkpointEvery: 0 } });
    const adapter = (folder: string) => Deno.readFile(`${folder}/adapter/adapter_model.safetensors`);
    const dtypeOf = async (folder: string) => {
      const base = await openModel(`${folder}/base`);
      base.close();
      return base.config.torch_dtype;
    };
    const [exact, before] = [`${files.folder}/exact`, `${files.folder}/before`];
    await runHere(recipe, exact);
    await beginBefore(before);
    await runHere(recipe, before, { resume: true });
    assertEquals([await dtypeOf(exact), await dtypeOf(before)], ["float32", "float16"]);
    assertNotEquals(await adapter(exact), await adapter(before));

    for (const [name, isOld, expected] of [["a", false, exact], ["b", true, before]] as const) {
      const folder = `${files.folder}/${name}`;
      const stop = (step: number) => step === 3 ? "stop" as const : "run" as const;
      if (isOld) await beginBefore(folder);
      await runHere(recipe, folder, { control: stop, resume: isOld });
      if (isOld) await forgetStorage(`${folder}/checkpoints/${checkpointName(3)}`);
      await runHere(recipe, folder, { resume: true });
      assertEquals(await adapter(folder), await adapter(expected), name);
      assertEquals(await dtypeOf(folder), await dtypeOf(expected), name);
      const registry = new Registry().addAll(builtins);
      const student = await RunStudent.open({ folder, recipe, registry });
      assertEquals(student.model.storage, isOld ? "half" : "exact");
      student.close();
    }
  }));
