/**
 * What a run leaves for others: the adapter in PEFT's layout, the base it belongs on, the merged model.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { join, resolve } from "@std/path";
import type { FloatDtype } from "../formats/dtype.ts";
import { writeHuggingFaceFolder } from "../formats/hf_write.ts";
import type { TensorData } from "../formats/model_source.ts";
import { writePeftAdapter } from "../formats/peft.ts";
import { InputError } from "../errors.ts";
import type { StudentAdapter } from "./adapter.ts";
import type { RunResult } from "./events.ts";
import type { Model } from "./models.ts";
import { needsBase, type PreparedRun } from "./prepare.ts";
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

/**
 * Writes `adapter/` and, if the recipe wants it, `merged/`.
 *
 * @param parameters The flat buffer of trained parameters
 * @returns The paths, relative to the run's folder
 */
export async function writeResults(
  folder: string,
  prepared: PreparedRun,
  { adapter }: TrainingSetup,
  parameters: Float32Array,
): Promise<RunResult["paths"]> {
  const { student, recipe } = prepared;
  const values = adapter.layout.gather(parameters);
  const hasBase = needsBase(student);
  await writeAdapter(
    join(folder, "adapter"),
    adapter,
    values,
    hasBase ? resolve(folder, "base") : student.path,
  );
  if (recipe.output.merged) await writeMerged(join(folder, "merged"), student, adapter, values);
  return {
    adapter: "adapter",
    ...(hasBase ? { base: "base" } : {}),
    ...(recipe.output.merged ? { merged: "merged" } : {}),
  };
}

/**
 * Writes an adapter folder for PEFT.
 *
 * @throws {InputError} for an adapter that PEFT has no layout for
 */
export async function writeAdapter(
  path: string,
  adapter: StudentAdapter,
  values: ReadonlyMap<string, Float32Array>,
  baseModel: string,
): Promise<void> {
  const layout = adapter.plugin.peft?.(adapter.settings, adapter.options);
  if (layout?.peftType !== "LORA") {
    throw new InputError(`PEFT has no layout for the adapter "${adapter.plugin.id}"`, {
      hint: "set output.merged and use the merged model",
    });
  }
  const tensors = new Map(
    adapter.layout.parameters.map((p): [string, TensorData] => [
      p.name,
      { dtype: "f32", shape: [...p.shape], data: new Float32Array(values.get(p.name)!) },
    ]),
  );
  const { rank, alpha, dropout, rslora } = adapter.settings;
  const rankPattern: Record<string, number> = {};
  const alphaPattern: Record<string, number> = {};
  for (const layer of adapter.layers) {
    if (layer.rank !== rank) rankPattern[layer.path] = layer.rank;
    if (layer.alpha !== alpha) alphaPattern[layer.path] = layer.alpha;
  }
  await writePeftAdapter(path, {
    settings: {
      rank,
      alpha,
      dropout,
      rsLora: rslora,
      targetModules: targetModules(adapter),
      baseModel,
      rankPattern,
      alphaPattern,
    },
    tensors,
  }, { replace: true });
}

/** Short names where they mean exactly the adapted layers, else full paths. */
function targetModules(adapter: StudentAdapter): string[] {
  const paths = adapter.layers.map((l) => l.path);
  const names = new Map<string, number>();
  for (const path of paths) {
    const name = path.split(".").at(-1)!;
    names.set(name, (names.get(name) ?? 0) + 1);
  }
  return [...names.values()].every((count) => count === adapter.studentLayers)
    ? [...names.keys()].sort()
    : paths;
}

/** Writes the student with the adapter merged in, in the storage type of its base. */
export async function writeMerged(
  path: string,
  student: Model,
  adapter: StudentAdapter,
  values: ReadonlyMap<string, Float32Array>,
): Promise<void> {
  const model = await huggingFaceModel(student, async (name) => {
    const merged = name.endsWith(".weight")
      ? await adapter.merged(name.slice(0, -".weight".length), student, values)
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
