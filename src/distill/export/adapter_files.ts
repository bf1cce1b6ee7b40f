/**
 * An adapter as files: in PEFT's own layout of the method, as the plain LoRA that means the same in the formats of several programs, or
 * as its own values.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename } from "@std/path";
import { InputError } from "../../base/errors.ts";
import { writeGgufAdapter } from "../../formats/gguf/adapter.ts";
import { writeMlxAdapter } from "../../formats/peft/mlx_adapter.ts";
import { type SavedModules, writePeftAdapter, writePeftFolder } from "../../formats/peft/peft.ts";
import { peftConfigOf } from "../../formats/peft/config.ts";
import type { TensorData } from "../../formats/model_source.ts";
import type { UniformLora } from "../../formats/peft/uniform_lora.ts";
import type { AdaptedLayer, PeftLayout } from "../../registry/contract.ts";
import type { ModelAdapter } from "../trained/model_adapter.ts";
import type { Model } from "../inputs/models.ts";
import { ggufTarget } from "./gguf_architecture.ts";
import { MERGE, savedModules, unsavable } from "./modules_to_save.ts";
import { writeOwnAdapter } from "./own_adapter.ts";
import { type PlainLayer, plainLayers, uniform } from "./plain_lora.ts";
import type { AdapterRecipe } from "../recipe/recipe.ts";
import type { TrainedTensors } from "../trained/trained_tensors.ts";

/**
 * `peft`: PEFT's layout where it has the method, else plain LoRA. `peft-plain`: plain LoRA of one rank and one scale for all layers,
 * for programs that know neither rsLoRA nor patterns. `gguf-adapter`: the same as a GGUF file. `mlx`: the same, or DoRA, for mlx-lm.
 * `limbeck`: the trained values under their own names, which any adapter has.
 */
export type AdapterForm = "peft" | "peft-plain" | "gguf-adapter" | "mlx" | "limbeck";

/** What files say of an adapter beside its values. */
export interface AdapterOrigin {
  /** Folder of the model it belongs on. */
  readonly baseModel: string;
  readonly recipe: AdapterRecipe;
  /** Seed of the run. */
  readonly seed: number;
  /** What else of that model was trained; its values are among the adapter's. */
  readonly beside?: { readonly student: Model; readonly tensors: TrainedTensors };
  /** `general.name` in a GGUF file; the file's name when absent. */
  readonly name?: string;
  /** More of `general.*` in a GGUF file. */
  readonly about?: Readonly<Record<string, string>>;
}

/** Whether an adapter can be written in a form. Of PEFT's methods only LoRA loads ranks that differ between layers. */
export function hasForm(adapter: ModelAdapter, form: AdapterForm): boolean {
  if (form === "limbeck" || adapter.plugin.plainLora) return true;
  const layout = peftLayout(adapter);
  if (form === "mlx") return isDora(layout);
  return form === "peft" && layout !== undefined && (layout.peftType === "LORA" || hasOneRank(adapter));
}

/** What a run leaves of an adapter, and of tensors that are trained beside it. */
export function runForm(adapter: ModelAdapter, tensors?: TrainedTensors): "peft" | "limbeck" {
  return hasForm(adapter, "peft") && !(tensors && unsavable(adapter, tensors)) ? "peft" : "limbeck";
}

function peftLayout({ plugin, settings, options }: ModelAdapter): PeftLayout | undefined {
  return plugin.peft?.(settings, options);
}

function isDora(layout: PeftLayout | undefined): layout is PeftLayout {
  return layout?.peftType === "LORA" && layout.config.use_dora === true;
}

function hasOneRank({ layers, settings }: ModelAdapter): boolean {
  return layers.every((l) => l.rank === settings.rank);
}

/**
 * Writes an adapter: a folder, or a file with `gguf-adapter`.
 *
 * @param values All values by name, see `ModelAdapter.namedValues`
 * @throws {InputError} for an adapter that does not exist in this form
 */
export async function writeAdapter(
  path: string,
  adapter: ModelAdapter,
  values: ReadonlyMap<string, Float32Array>,
  origin: AdapterOrigin,
  form: AdapterForm = "peft",
): Promise<void> {
  if (!hasForm(adapter, form)) throw formless(adapter, form);
  if (adapter.adaptsExperts && (form === "peft-plain" || form === "mlx")) throw expertless(form);
  const { baseModel, beside } = origin;
  if (beside && form !== "limbeck") checkBeside(adapter, beside.tensors, form);
  const layout = peftLayout(adapter);
  switch (form) {
    case "peft": {
      const base = { baseModel, saved: beside && await savedModules(beside.student, beside.tensors, values) };
      if (layout?.peftType === "LORA") return await writeLora(path, adapter, values, base, layout);
      if (layout && hasOneRank(adapter)) return await writeOther(path, adapter, values, base, layout);
      return await writePlain(path, adapter, base, plainLayers(adapter, values));
    }
    case "peft-plain":
      return await writePlain(path, adapter, { baseModel }, spread(uniform(plainLayers(adapter, values))));
    case "gguf-adapter":
      return await writeGgufAdapter(path, {
        name: origin.name ?? basename(path, ".gguf"),
        ...(origin.about ? { about: origin.about } : {}),
        lora: uniform(plainLayers(adapter, values)),
        ...ggufTarget(adapter.model),
      });
    case "mlx": {
      if (adapter.adaptsHead) {
        throw new InputError(`mlx-lm loads adapters inside layers only, and ${adapter.head} has one`, {
          where: "recipe adapter.targets",
          hint: MERGE,
        });
      }
      const layers = isDora(layout) ? doraLayers(adapter, values, layout) : plainLayers(adapter, values);
      const { model, settings: { dropout } } = adapter;
      const lora = uniform(layers.map((layer) => ({ ...layer, path: mlxPath(model, layer.path) })));
      const mlx = { model: baseModel, lora, dropout, modelLayers: model.config.layers };
      return await writeMlxAdapter(path, mlx, { replace: true });
    }
    case "limbeck":
      return await writeOwnAdapter(path, adapter, values, origin);
  }
}

/** What mlx-lm calls a module inside of a layer. @throws {InputError} where that is not known */
function mlxPath({ architecture: { family: { name, names } }, path }: Model, module: string): string {
  const { layers, mlxLayers } = names;
  if (mlxLayers === undefined && layers !== "model.layers") {
    throw new InputError(`what mlx-lm calls the layers of a model of the family ${name} is not known`, {
      where: path,
      hint: MERGE,
    });
  }
  return `${mlxLayers ?? layers}${module.slice(layers.length)}`;
}

/** @throws {InputError} where a form has no place for tensors that were trained beside an adapter */
function checkBeside(adapter: ModelAdapter, tensors: TrainedTensors, form: AdapterForm): void {
  if (form !== "peft") {
    const some = tensors.trained.slice(0, 3).map(({ name }) => name).join(", ");
    throw new InputError(
      `no ${form} file has a place for tensors that were trained themselves (${some}${
        tensors.trained.length > 3 ? ", ..." : ""
      })`,
      { where: "recipe student.train", hint: `${MERGE}; PEFT loads them with \`--target peft\`` },
    );
  }
  const wrong = unsavable(adapter, tensors);
  if (wrong) throw wrong;
}

/** What an adapter folder of PEFT says beside the adapter. */
interface PeftBase {
  readonly baseModel: string;
  readonly saved?: SavedModules | undefined;
}

function formless(adapter: ModelAdapter, form: AdapterForm): InputError {
  const { id } = adapter.plugin;
  const reason = form === "peft"
    ? `PEFT has no layout for the adapter "${id}"${hasOneRank(adapter) ? "" : " with ranks by layer"}`
    : form === "mlx"
    ? `the adapter "${id}" is neither a low-rank update of the weight nor DoRA, and mlx-lm knows nothing else`
    : `the adapter "${id}" is no low-rank update of the weight, so there is no plain LoRA that means the same`;
  const merge = "merge it into the weights: `limbeck export --target merged`, or `--target gguf`";
  return new InputError(reason, {
    where: "recipe adapter.type",
    hint: `${id === "dora" ? "vLLM and llama.cpp do not load DoRA; " : ""}${
      adapter.plugin.merge ? merge : "export its own values: `limbeck export --target limbeck`"
    }`,
  });
}

/** The refusal of a form that has no place for what is trained of experts. */
function expertless(form: "peft-plain" | "mlx"): InputError {
  const reasons = {
    "peft-plain": "programs that know plain LoRA alone know none of PEFT's target_parameters",
    "mlx": "what mlx-lm calls them is not known",
  };
  return new InputError(`the adapter is on experts of a mixture, and ${reasons[form]}`, {
    where: "recipe adapter.targets",
    hint: MERGE,
  });
}

/** LoRA and its relatives that PEFT knows by a flag. */
async function writeLora(
  path: string,
  adapter: ModelAdapter,
  values: ReadonlyMap<string, Float32Array>,
  { baseModel, saved }: PeftBase,
  layout: PeftLayout,
): Promise<void> {
  const { rank, alpha, dropout, rslora } = adapter.settings;
  await writePeftAdapter(path, {
    settings: {
      rank,
      alpha,
      dropout,
      rsLora: rslora,
      dora: layout.config.use_dora === true,
      targetModules: targetModules(adapter),
      ...(adapter.adaptsExperts ? { targetParameters: targetParameters(adapter) } : {}),
      fanInFanOut: adapter.model.architecture.family.fanInFanOut,
      baseModel,
      rankPattern: pattern(adapter.layers, rank, (l) => l.rank),
      alphaPattern: pattern(adapter.layers, alpha, (l) => l.alpha),
    },
    tensors: new Map(layerTensors(adapter, values, layout)),
    experts: new Map(
      adapter.layers.flatMap(({ path, experts }) => experts === undefined ? [] : [[path, experts]]),
    ),
    ...(saved ? { saved } : {}),
  }, { replace: true });
}

/** Methods of PEFT that want to be told how weights are stored. */
const TOLD_LAYOUT = new Set(["ADALORA", "VERA"]);

/** Methods with a type of their own. */
async function writeOther(
  path: string,
  adapter: ModelAdapter,
  values: ReadonlyMap<string, Float32Array>,
  { baseModel, saved }: PeftBase,
  layout: PeftLayout,
): Promise<void> {
  const tensors = new Map<string, TensorData>(
    layerTensors(adapter, values, layout).map(([name, t]) => [`base_model.model.${name}`, t]),
  );
  for (const [key, t] of Object.entries(layout.network?.(adapter.sharedValues(values)) ?? {})) {
    tensors.set(key, f32(t.shape, t.data));
  }
  for (const [name, t] of saved?.tensors ?? []) tensors.set(`base_model.model.${name}`, t);
  const config = peftConfigOf(
    layout.peftType,
    { baseModel, targetModules: targetModules(adapter) },
    {
      ...layout.config,
      ...(adapter.model.architecture.family.fanInFanOut && TOLD_LAYOUT.has(layout.peftType)
        ? { fan_in_fan_out: true }
        : {}),
      ...layout.trainedConfig?.(adapter.layers.map(({ path }) => adapter.values(path, values))),
      ...(saved ? { modules_to_save: saved.modules } : {}),
    },
  );
  await writePeftFolder(path, config, tensors, { replace: true });
}

/** W + scale B A of every layer. */
async function writePlain(
  path: string,
  adapter: ModelAdapter,
  { baseModel, saved }: PeftBase,
  layers: readonly PlainLayer[],
): Promise<void> {
  const rank = Math.max(...layers.map((l) => l.rank));
  const alpha = layers[0]!.scale * rank;
  const of = new Map(layers.map((l) => [l.path, l]));
  await writePeftAdapter(path, {
    settings: {
      rank,
      alpha,
      targetModules: targetModules(adapter),
      fanInFanOut: adapter.model.architecture.family.fanInFanOut,
      baseModel,
      rankPattern: pattern(adapter.layers, rank, (l) => of.get(l.path)!.rank),
      alphaPattern: pattern(adapter.layers, alpha, (l) => of.get(l.path)!.scale * of.get(l.path)!.rank),
    },
    tensors: new Map(layers.flatMap(({ path, inFeatures, outFeatures, rank, a, b }) => [
      [`${path}.lora_A.weight`, f32([rank, inFeatures], a)],
      [`${path}.lora_B.weight`, f32([outFeatures, rank], b)],
    ])),
    ...(saved ? { saved } : {}),
  }, { replace: true });
}

/** Every layer with the rank and the scale that they share. */
function spread({ rank, scale, layers }: UniformLora): PlainLayer[] {
  return layers.map((layer) => ({ ...layer, rank, scale }));
}

/** DoRA's factors and magnitudes, from the tensors that PEFT would get. */
function doraLayers(
  adapter: ModelAdapter,
  values: ReadonlyMap<string, Float32Array>,
  layout: PeftLayout,
): PlainLayer[] {
  const tensors = new Map(layerTensors(adapter, values, layout));
  return adapter.layers.map((layer) => {
    const { path, rank, alpha } = layer;
    const data = (suffix: string) => tensors.get(`${path}.${suffix}`)!.data as Float32Array;
    return {
      ...layer,
      scale: alpha / (adapter.settings.rslora ? Math.sqrt(rank) : rank),
      a: data("lora_A.weight"),
      b: data("lora_B.weight"),
      magnitude: data("lora_magnitude_vector"),
    };
  });
}

/** The saved parameters of every layer, under their names in PEFT without its prefix. */
function layerTensors(
  adapter: ModelAdapter,
  values: ReadonlyMap<string, Float32Array>,
  layout: PeftLayout,
): [string, TensorData][] {
  return adapter.layers.flatMap(({ path }) => {
    const own = adapter.values(path, values);
    if (layout.layer) {
      return Object.entries(layout.layer(own)).map(([suffix, t]): [string, TensorData] => [
        `${path}.${suffix}`,
        f32(t.shape, t.data),
      ]);
    }
    return adapter.definitions(path).flatMap((p): [string, TensorData][] => {
      const suffix = layout.suffixes ? layout.suffixes[p.name] : p.trainable === false ? undefined : p.suffix;
      if (suffix === undefined) return [];
      return [[`${path}.${suffix}`, f32(p.shape, own.parameter(p.name))]];
    });
  });
}

function f32(shape: readonly number[], data: Float32Array): TensorData {
  return { dtype: "f32", shape: [...shape], data: new Float32Array(data) };
}

function pattern(
  layers: readonly AdaptedLayer[],
  usual: number,
  valueOf: (layer: AdaptedLayer) => number,
): Record<string, number> {
  return Object.fromEntries(layers.filter((l) => valueOf(l) !== usual).map((l) => [l.path, valueOf(l)]));
}

/** The same of experts: PEFT finds the parameters that hold all experts of a layer by their own names. */
function targetParameters({ layers, model: { architecture } }: ModelAdapter): string[] {
  const paths = layers.filter(({ experts }) => experts !== undefined).map(({ path }) => path);
  const ending = (path: string) => path.split(".").slice(-2).join(".");
  const names = new Set(paths.map(ending));
  const all = architecture.expertLayers.map(({ name }) => name);
  return all.every((path) => !names.has(ending(path)) || paths.includes(path)) ? [...names].sort() : paths;
}

/** Short names where they mean exactly the adapted layers, else full paths. */
function targetModules(adapter: ModelAdapter): string[] {
  const paths = adapter.layers.filter(({ experts }) => experts === undefined).map((l) => l.path);
  const lastPart = (path: string) => path.split(".").at(-1)!;
  const names = new Set(paths.map(lastPart));
  // Those of single experts too, which are none of these, but whose names PEFT would find.
  const weights = [...adapter.model.architecture.tensors.keys()].filter((name) => name.endsWith(".weight"));
  const all = [...weights.map((name) => name.slice(0, -".weight".length)), adapter.head];
  return all.every((path) => !names.has(lastPart(path)) || paths.includes(path)) ? [...names].sort() : paths;
}
