/**
 * What a run leaves for others: the adapter, the base it belongs on, the merged model.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join, resolve } from "@std/path";
import type { FloatDtype } from "../../formats/dtype.ts";
import { configOfLayers } from "../../formats/huggingface/config.ts";
import { writeHuggingFaceFolder } from "../../formats/huggingface/write.ts";
import type { TensorData } from "../../formats/model_source.ts";
import type { ModelAdapter } from "../trained/model_adapter.ts";
import { type AdapterOrigin, runForm, writeAdapter } from "./adapter_files.ts";
import type { Trained } from "../trained/attach.ts";
import type { DrawnShare } from "../../text/batch_stream.ts";
import type { Evaluation } from "../../evaluation/results/evaluation.ts";
import type { Model } from "../inputs/models.ts";
import { needsBase, type PreparedRun } from "../inputs/prepare.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { valuesOf } from "../trained/trained_student.ts";
import type { TrainedTensors } from "../trained/trained_tensors.ts";
import type { TrainingSetup } from "../program/plan_training.ts";
import { exists } from "../../formats/files.ts";

/** How a run ended. Losses are held-out cross-entropy in nats a token; null where it was not measured or is not finite. */
export interface RunResult {
  status: "succeeded" | "paused";
  /** Steps done, in all attempts. */
  steps: number;
  heldOut: {
    teacher: number | null;
    before: number | null;
    after: number | null;
    /** (before - after) / (before - teacher): 1 is the teacher's own loss. Null where before is not above teacher. */
    gapClosed: number | null;
    /** Supervised tokens measured. */
    tokens: number;
  };
  /**
   * Of a teacher with a tokenizer of its own, the same in bits a byte of the text, which compare across tokenizers; absent otherwise. The gap
   * closed is then that in bits a byte.
   */
  bitsPerByte?: Pick<RunResult["heldOut"], "teacher" | "before" | "after">;
  /** The same of each of several held-out sets, the one first that `heldOut` is of; absent where there is one. */
  heldOutSets?: ({ name: string } & RunResult["heldOut"])[];
  /** What was drawn of each training set in all attempts; absent where there is no list of them. */
  drawn?: DrawnShare[];
  /** Relative to the run's folder; absent where nothing was written. */
  paths: {
    adapter?: string;
    teacherAdapter?: string;
    base?: string;
    merged?: string;
    shape?: string;
    report?: string;
  };
  /** How `paths.adapter` is laid out: as PEFT loads it, or, where PEFT has no layout for the adapter, as its own values. */
  adapterForm?: "peft" | "limbeck";
  /** Peak bytes on the GPU, planned and allocated. */
  peakBytes: { planned: number; allocated: number };
  seconds: number;
  /** What teacher, student before and student after came to on the recipe's tasks; absent where it has none. */
  evaluation?: Evaluation;
  /** What a task that trains nothing found; JSON. */
  findings?: Readonly<Record<string, unknown>>;
}

/** The storage type of a folder that holds this model exactly: the one that was asked for, or the smallest. */
export function folderDtype(model: Model): FloatDtype {
  // What was asked for, of values in blocks too, which are f32 when they are read.
  if (model.storage !== "exact" && model.storage !== "half") return model.storage;
  const dtypes = new Set([...model.tensors().values()].map((t) => t.dtype));
  // f16 and bf16 side by side only fit f32.
  if (dtypes.has("f32") || dtypes.size > 1) return "f32";
  return dtypes.has("bf16") ? "bf16" : "f16";
}

function huggingFaceModel(model: Model, read: (name: string) => Promise<TensorData>) {
  const { config: whole } = model.source;
  // Where the width is cut, the source is of the kept layers already.
  const isCut = !model.isNarrowed && model.keptLayers.length < model.sourceLayers;
  const config = isCut
    ? { ...configOfLayers(whole, model.keptLayers), ...model.architecture.layerFields }
    : whole;
  return async () => ({
    config: model.untied ? { ...config, tie_word_embeddings: false } : config,
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
  { student, recipe }: Pick<PreparedRun, "student" | "recipe">,
  options: { keep?: boolean } = {},
): Promise<void> {
  if (!leavesBase(recipe, student)) return;
  const path = join(folder, "base");
  if (options.keep && await exists(path)) return;
  await writeModelFolder(path, student, { replace: true });
}

/** Writes a model as it is, its layers renumbered where some were cut away, in the smallest storage that holds it exactly. */
export async function writeModelFolder(
  path: string,
  model: Model,
  options: { replace?: boolean; readme?: string } = {},
): Promise<void> {
  const written = await huggingFaceModel(model, (name) => model.read(name))();
  await writeHuggingFaceFolder(path, written, { ...options, dtype: folderDtype(model) });
}

/** Only an adapter needs a base. */
function leavesBase({ adapter }: Recipe, student: Model): boolean {
  return adapter !== "none" && needsBase(student);
}

/** Where PEFT finds the base of a run's adapter. */
function baseFolder(folder: string, student: Model): string {
  return needsBase(student) ? resolve(folder, "base") : student.path;
}

/** A run with an adapter. */
interface TrainedRun {
  readonly recipe: Recipe;
  readonly adapter: ModelAdapter;
  readonly tensors?: TrainedTensors | undefined;
}

/** What files say of a run's adapter. */
export function adapterOrigin(
  folder: string,
  student: Model,
  { recipe, adapter, tensors }: TrainedRun,
): AdapterOrigin {
  return {
    baseModel: baseFolder(folder, student),
    recipe: adapter.recipe,
    seed: recipe.train.seed,
    ...(tensors ? { beside: { student, tensors } } : {}),
  };
}

/**
 * Writes `adapter/` where there is one, `teacher-adapter/` where the teacher was trained along and, if the recipe wants it, `merged/`.
 *
 * @param parameters The flat buffer of trained parameters
 * @returns The paths, relative to the run's folder
 */
export async function writeResults(
  folder: string,
  prepared: PreparedRun,
  setup: TrainingSetup,
  parameters: Float32Array,
): Promise<RunResult["paths"]> {
  const { teacher, student, recipe } = prepared;
  const { adapter, tensors, teacherAdapter } = setup;
  const trained = setup.trainables.layout.gather(parameters);
  const values = await valuesOf(setup, trained, recipe.train.seed);
  if (adapter) {
    const origin = adapterOrigin(folder, student, { recipe, adapter, tensors });
    await writeAdapter(join(folder, "adapter"), adapter, values, origin, runForm(adapter, tensors));
  }
  if (recipe.output.merged) await writeMerged(join(folder, "merged"), student, setup, values);
  if (teacherAdapter) {
    const own = await teacherAdapter.namedValues(trained, recipe.train.seed);
    await writeAdapter(join(folder, "teacher-adapter"), teacherAdapter, own, {
      baseModel: teacher.path,
      recipe: teacherAdapter.recipe,
      seed: recipe.train.seed,
    }, runForm(teacherAdapter));
  }
  return {
    ...(adapter ? { adapter: "adapter" } : {}),
    ...(teacherAdapter ? { teacherAdapter: "teacher-adapter" } : {}),
    ...(leavesBase(recipe, student) ? { base: "base" } : {}),
    ...(recipe.output.merged ? { merged: "merged" } : {}),
  };
}

/** Writes the student with all that was trained in it, in the storage type of its base. */
export async function writeMerged(
  path: string,
  student: Model,
  { adapter, tensors }: Trained,
  values: ReadonlyMap<string, Float32Array>,
): Promise<void> {
  const valueOf = async (name: string) => {
    if (tensors?.has(name)) return values.get(name)!;
    return name.endsWith(".weight")
      ? await adapter?.merged(name.slice(0, -".weight".length), values)
      : undefined;
  };
  const model = await huggingFaceModel(student, async (name) => {
    const merged = await valueOf(name);
    if (!merged) return await student.read(name);
    return {
      dtype: "f32",
      shape: student.tensors().get(name)!.shape,
      data: merged as Float32Array<ArrayBuffer>,
    };
  })();
  await writeHuggingFaceFolder(path, model, { dtype: folderDtype(student), replace: true });
}
