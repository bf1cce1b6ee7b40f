/**
 * What a run leaves for others: the adapter, the base it belongs on, the merged model.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { join, resolve } from "@std/path";
import type { FloatDtype } from "../formats/dtype.ts";
import { writeHuggingFaceFolder } from "../formats/hf_write.ts";
import type { TensorData } from "../formats/model_source.ts";
import type { ModelAdapter } from "./adapter.ts";
import { type AdapterOrigin, runForm, writeAdapter } from "./adapter_files.ts";
import type { RunResult } from "./events.ts";
import type { Model } from "./models.ts";
import { needsBase, type PreparedRun } from "./prepare.ts";
import type { Recipe } from "./recipe.ts";
import type { TrainingSetup } from "./trainer.ts";

/** The storage type of a folder that holds this model exactly. */
export function folderDtype(model: Model): FloatDtype {
  const dtypes = new Set([...model.tensors().values()].map((t) => t.dtype));
  // f16 and bf16 side by side only fit f32.
  if (dtypes.has("f32") || dtypes.size > 1) return "f32";
  return dtypes.has("bf16") ? "bf16" : "f16";
}

function huggingFaceModel(model: Model, read: (name: string) => Promise<TensorData>) {
  return async () => ({
    config: { ...model.source.config, num_hidden_layers: model.config.layers },
    tokenizer: await model.source.tokenizer(),
    tensors: new Map([...model.tensors()].map(([name, { shape }]) => [name, shape])),
    read,
  });
}

/**
 * Writes `base/` where the student's base is not a folder that someone has.
 *
 * @param options.keep Leaves one that is there: a run that continues from a checkpoint has written it
 */
export async function writeBase(
  folder: string,
  { student }: Pick<PreparedRun, "student">,
  options: { keep?: boolean } = {},
): Promise<void> {
  if (!needsBase(student)) return;
  const path = join(folder, "base");
  if (options.keep && await Deno.stat(path).then(() => true, () => false)) return;
  const model = await huggingFaceModel(student, (name) => student.read(name))();
  await writeHuggingFaceFolder(path, model, { dtype: folderDtype(student), replace: true });
}

/** Where PEFT finds the base of a run's adapter. */
function baseFolder(folder: string, student: Model): string {
  return needsBase(student) ? resolve(folder, "base") : student.path;
}

/** What files say of a run's adapter. */
export function adapterOrigin(folder: string, student: Model, recipe: Recipe): AdapterOrigin {
  return {
    baseModel: baseFolder(folder, student),
    headDim: student.config.headDim,
    recipe: recipe.adapter,
    seed: recipe.train.seed,
  };
}

/**
 * Writes `adapter/`, `teacher-adapter/` where the teacher was trained along and, if the recipe wants it, `merged/`.
 *
 * @param parameters The flat buffer of trained parameters
 * @returns The paths, relative to the run's folder
 */
export async function writeResults(
  folder: string,
  prepared: PreparedRun,
  { adapter, teacherAdapter, trainables }: TrainingSetup,
  parameters: Float32Array,
): Promise<RunResult["paths"]> {
  const { teacher, student, recipe } = prepared;
  const trained = trainables.layout.gather(parameters);
  const values = await adapter.namedValues(trained, recipe.train.seed);
  const hasBase = needsBase(student);
  const origin = adapterOrigin(folder, student, recipe);
  await writeAdapter(join(folder, "adapter"), adapter, values, origin, runForm(adapter));
  if (recipe.output.merged) await writeMerged(join(folder, "merged"), student, adapter, values);
  if (teacherAdapter) {
    const own = await teacherAdapter.namedValues(trained, recipe.train.seed);
    await writeAdapter(join(folder, "teacher-adapter"), teacherAdapter, own, {
      ...origin,
      baseModel: teacher.path,
      headDim: teacher.config.headDim,
      recipe: recipe.teacher.adapter ?? recipe.adapter,
    }, runForm(teacherAdapter));
  }
  return {
    adapter: "adapter",
    ...(teacherAdapter ? { teacherAdapter: "teacher-adapter" } : {}),
    ...(hasBase ? { base: "base" } : {}),
    ...(recipe.output.merged ? { merged: "merged" } : {}),
  };
}

/** Writes the student with the adapter merged in, in the storage type of its base. */
export async function writeMerged(
  path: string,
  student: Model,
  adapter: ModelAdapter,
  values: ReadonlyMap<string, Float32Array>,
): Promise<void> {
  const model = await huggingFaceModel(student, async (name) => {
    const merged = name.endsWith(".weight")
      ? await adapter.merged(name.slice(0, -".weight".length), values)
      : undefined;
    if (!merged) return await student.read(name);
    return {
      dtype: "f32",
      shape: student.tensors().get(name)!.shape,
      data: merged as Float32Array<ArrayBuffer>,
    };
  })();
  await writeHuggingFaceFolder(path, model, { dtype: folderDtype(student), replace: true });
}
