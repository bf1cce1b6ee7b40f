/**
 * Limbeck distils a language model into a smaller one on whatever GPU is at hand.
 *
 * {@linkcode distill} runs a recipe, {@linkcode merge} makes one model of several, {@linkcode shrink} a smaller one; the `define...`
 * functions make losses, adapters, merges and families of models of your own.
 *
 * @example
 * ```ts ignore
 * import { distill } from "./mod.ts";
 *
 * const result = await distill({
 *   teacher: { model: "./teacher" },
 *   student: { model: "teacher", layers: [0, 1, 3, 5] },
 *   data: { train: "train.jsonl", contextLength: 256 },
 * }, { onEvent: (event) => event.type === "metrics" && console.log(event.step, event.loss) });
 * console.log(result.heldOut.after, result.folder);
 * ```
 *
 * @module
 */
import type { RunEvent } from "./src/distill/run/events.ts";
import type { RunResult } from "./src/distill/export/exports.ts";
import { type RecipeInput } from "./src/distill/recipe/recipe.ts";
import { parseRecipe } from "./src/distill/recipe/parse.ts";
import { absolutePaths } from "./src/distill/recipe/paths.ts";
import { loadRecipe } from "./src/distill/recipe/file.ts";
import { type FetchOptions, localModel } from "./src/hub/fetch_model.ts";
import { exactLinearAlgebra } from "./src/linalg/host.ts";
import { LimbeckError } from "./src/base/errors.ts";
import { mergeModels, type MergeProgress, type MergeResult } from "./src/merge/engine/merge_models.ts";
import type { MergeRecipe } from "./src/merge/recipe/recipe.ts";
import { loadMergeRecipe, withLocalParents } from "./src/merge/recipe/recipe_file.ts";
import type { Plugin } from "./src/registry/contract.ts";
import { Registry } from "./src/registry/registry.ts";
import { builtins } from "./plugins/mod.ts";
import { pluginSource } from "./src/runs/child/plugin_source.ts";
import { restoreModels, withLocalModels } from "./src/runs/task/hub_models.ts";
import { openStore, openStoreOf } from "./src/runs/store/data_folder.ts";
import { createRun, type LockedRun, openRun, readRun, removeUnbegun } from "./src/runs/store/run_folder.ts";
import { superviseRun } from "./src/runs/supervise/supervisor.ts";
import { EVALUATIONS_FOLDER } from "./src/runs/store/data_folder.ts";
import { shrinkGrid, shrinkModel } from "./src/shape/shrink.ts";
import type { ShrinkGridOptions, ShrinkOptions, Shrunk, ShrunkGrid } from "./src/shape/shrunk.ts";

export {
  defineRecipe,
  type HeldOutSet,
  type Recipe,
  type RecipeInput,
  type TrainingSet,
} from "./src/distill/recipe/recipe.ts";
export type { RunEvent } from "./src/distill/run/events.ts";
export type { ShrinkGridOptions, ShrinkOptions, Shrunk, ShrunkGrid } from "./src/shape/shrunk.ts";
export type { MeasuredShape } from "./src/shape/shapes.ts";
export { shrinkReportHtml } from "./src/runs/report/shrink_report.ts";
export type { RunResult } from "./src/distill/export/exports.ts";
export * from "./src/base/errors.ts";
export * from "./src/registry/contract.ts";
export type { MergeProgress, MergeResult } from "./src/merge/engine/merge_models.ts";
export { type AdapterMerge, type MergedAdapter, writeMergedAdapter } from "./src/merge/adapters/adapters.ts";
export {
  extractLora,
  type ExtractOptions,
  type ExtractResult,
  writeResidualAdapter,
} from "./src/merge/residual/extract.ts";
export {
  type ResidualModels,
  type ResidualOptions,
  type ResidualResult,
  writeResidual,
} from "./src/merge/residual/residual.ts";
export { type MergeRecipe, parseMergeRecipe } from "./src/merge/recipe/recipe.ts";

/** Options of {@linkcode distill} and {@linkcode resume}. */
export interface DistillOptions {
  /** Sees every event of the run once it is stored. */
  readonly onEvent?: (event: RunEvent) => void;
  /** Aborting it saves a checkpoint and ends the run with status `paused`. */
  readonly signal?: AbortSignal;
  /** Whether kernels that the device has not chosen among yet are timed first (default `auto`: where a GPU does the work). */
  readonly tune?: "auto" | "always" | "never";
  /** Modules with losses or adapters that the recipe names: files, and packages such as `npm:@ada/losses@1.2.3`. */
  readonly plugins?: readonly string[];
  /** Folder of runs and their store; `limbeck-data` by default. The run lies in it unless the recipe names an output folder. */
  readonly dataFolder?: string;
}

/** What a run gives back: its numbers, and where its files lie. */
export interface DistillResult extends RunResult {
  /** Absolute path of the run's folder. */
  readonly folder: string;
}

/**
 * Distils: runs a recipe in a process of its own and waits for it.
 *
 * @param recipe A recipe, or the path of a recipe file (YAML, JSON or TypeScript)
 * @throws {LimbeckError} the error that the run failed with; its subclasses tell bad input, device and divergence apart
 */
export async function distill(
  recipe: RecipeInput | string,
  options: DistillOptions = {},
): Promise<DistillResult> {
  const named = typeof recipe === "string"
    ? await loadRecipe(recipe)
    : absolutePaths(parseRecipe(recipe), Deno.cwd());
  const checked = await withLocalModels(named, (name) => localModel(name, fetching(options)));
  const plugins = (options.plugins ?? []).map((name) => pluginSource(name, Deno.cwd()));
  using store = openStore(options.dataFolder);
  return await follow(await createRun({ store, recipe: checked, plugins }), false, options);
}

/**
 * Continues a run from its last checkpoint, bit for bit as if it had not stopped.
 *
 * @param folder The run's folder
 * @throws {LimbeckError} as {@linkcode distill}, and if recipe, models or plugins have changed
 */
export async function resume(folder: string, options: DistillOptions = {}): Promise<DistillResult> {
  using store = await openStoreOf(folder, options.dataFolder);
  await restoreModels((await readRun(folder)).recipe, fetching(options));
  return await follow(await openRun(folder, store), true, options);
}

function fetching({ signal }: { readonly signal?: AbortSignal }): FetchOptions {
  return signal ? { signal } : {};
}

async function follow(
  run: LockedRun,
  resumed: boolean,
  { onEvent, signal, tune }: DistillOptions,
): Promise<DistillResult> {
  try {
    const supervised = superviseRun({
      ...{ run, resume: resumed },
      ...(onEvent ? { onEvent } : {}),
      ...(tune ? { tune } : {}),
    });
    const stop = () => supervised.request("stop");
    signal?.addEventListener("abort", stop);
    if (signal?.aborted) stop();
    const { result, error, state } = await supervised.outcome;
    signal?.removeEventListener("abort", stop);
    if (error) {
      run.release();
      if (!resumed) await removeUnbegun(run, error.exitCode);
      throw new RunFailedError(error);
    }
    if (!result) throw new LimbeckError(`the run ended as ${state}, without a result`);
    return { ...result, folder: run.folder };
  } finally {
    run.release();
  }
}

/** A run failed; `code` and `exitCode` are those of the error in its process. */
export class RunFailedError extends LimbeckError {
  override readonly exitCode: LimbeckError["exitCode"];
  override readonly code: string;

  constructor(error: { code: string; message: string; hint?: string; exitCode: number }) {
    super(error.message, error.hint === undefined ? {} : { hint: error.hint });
    this.code = error.code;
    this.exitCode = error.exitCode as LimbeckError["exitCode"];
  }
}

/** Options of {@linkcode merge}. */
export interface MergeOptions {
  /** Methods beside the built-in ones. */
  readonly plugins?: readonly Plugin[];
  readonly onProgress?: (progress: MergeProgress) => void;
  /** Aborting it ends the merge; nothing is left behind. */
  readonly signal?: AbortSignal;
}

/**
 * Merges models into a folder, tensor by tensor: whole or not at all.
 *
 * @param recipe A recipe as {@linkcode parseMergeRecipe} gives it, or the path of a recipe file, ours or mergekit's
 * @throws {InputError} for a recipe that breaks rules, models that do not fit each other, or an output that is there already
 *
 * @example
 * ```ts ignore
 * const { files } = await merge("merge.yaml", "merged");
 * ```
 */
export async function merge(
  recipe: MergeRecipe | string,
  output: string,
  { plugins = [], ...options }: MergeOptions = {},
): Promise<MergeResult> {
  const registry = new Registry().addAll(builtins).addAll(plugins, "merge()");
  const read = typeof recipe === "string" ? await loadMergeRecipe(recipe) : recipe;
  const local = await withLocalParents(read, (name) => localModel(name, fetching(options)));
  return await mergeModels(local, output, {
    ...options,
    method: (id) => registry.get("merge", id),
    linalg: exactLinearAlgebra,
    where: typeof recipe === "string" ? recipe : "merge recipe",
  });
}

/** What a program need not say of a shrink: the folder of what was measured is `limbeck-data/evaluations` unless it does. */
type WithDefaults<T extends { registry: unknown; cacheFolder: string }> =
  & Omit<T, "registry" | "cacheFolder">
  & { readonly cacheFolder?: string };

/**
 * Cuts layers, heads and channels out of a model: searches for those that it can best do without, and writes what is left.
 *
 * @throws {InputError} if the model, the data or the goal do not do, or something is at the place of an output
 *
 * @example
 * ```ts ignore
 * const { findings, parameters } = await shrink({
 *   model: "./teacher",
 *   data: { files: ["heldout.jsonl"] },
 *   metric: "loss",
 *   goal: { search: "dp", layers: 4, keepLast: 0, beamWidth: 4 },
 *   output: "./small",
 * });
 * console.log(findings?.plan.kept, parameters);
 * ```
 */
export async function shrink(options: WithDefaults<ShrinkOptions>): Promise<Shrunk> {
  return await shrinkModel({
    cacheFolder: EVALUATIONS_FOLDER,
    ...options,
    model: await localModel(options.model, fetching(options)),
    registry: new Registry().addAll(builtins),
  });
}

/**
 * Measures several numbers of layers with several widths, and how fast they are; {@linkcode shrinkReportHtml} draws them.
 *
 * @throws {InputError} if the model, the data or a goal do not do
 */
export async function shrinkEach(options: WithDefaults<ShrinkGridOptions>): Promise<ShrunkGrid> {
  return await shrinkGrid({
    cacheFolder: EVALUATIONS_FOLDER,
    ...options,
    model: await localModel(options.model, fetching(options)),
    registry: new Registry().addAll(builtins),
  });
}
