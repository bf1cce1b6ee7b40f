/**
 * Runs in a tab: the run of `src/distill` as it is, on files that were picked or lie on a server, with its own files kept in the tab.
 *
 * @module
 */
/// <reference types="../../types/browser.d.ts" />
import { builtins } from "../../plugins/mod.ts";
import { InputError, LimbeckError } from "../base/errors.ts";
import type { RunControl, RunEventBody } from "../distill/run/events.ts";
import { distillRun } from "../distill/run/distill.ts";
import type { RunResult } from "../distill/export/exports.ts";
import { applySets } from "../distill/recipe/file.ts";
import { parseRecipe } from "../distill/recipe/parse.ts";
import { mapRecipePaths } from "../distill/recipe/paths.ts";
import type { Recipe } from "../distill/recipe/recipe.ts";
import type { Gpu } from "../gpu/device.ts";
import { Registry } from "../registry/registry.ts";
import { checkpointedStep } from "./checkpointed_step.ts";
import type { Files, KeptRun, TabOrder } from "./messages.ts";
import { keptFiles, showFiles, system } from "./system.ts";
import { blobFile, remoteFile, type TabFile } from "./tab_file.ts";
import { keepHere, tuningHere } from "./tuned_here.ts";

const RUNS = "/runs";
const ORDER = "order.json";

/** What is kept of an order: of picked files their names alone. */
interface KeptOrder extends Pick<TabOrder, "recipe"> {
  readonly sets: readonly string[];
  readonly models: Readonly<Record<string, Readonly<Record<string, string | null>>>>;
  readonly datasets: KeptOrder["models"];
  readonly steps: number;
}

/** Folder of a run. */
export function folderOf(id: string): string {
  if (!/^[a-z0-9-]{1,64}$/.test(id)) throw new InputError("is no name of a run", { where: id });
  return `${RUNS}/${id}`;
}

/** The runs that the tab keeps, newest first. */
export async function keptRuns(): Promise<KeptRun[]> {
  const files = await keptFiles();
  const found: KeptRun[] = [];
  for (const id of (await files.list(RUNS)).sort().reverse()) {
    const text = await system.readTextFile(`${folderOf(id)}/${ORDER}`).catch(() => undefined);
    if (text === undefined) continue;
    const { recipe, sets, models, datasets, steps } = JSON.parse(text) as KeptOrder;
    const events = await files.events(id) as RunEventBody[];
    const isDone = events.some((event) => event.type === "result" && event.result.status === "succeeded");
    const picked = Object.entries({ ...models, ...datasets })
      .map(([name, files]) => [name, Object.keys(files).filter((file) => files[file] === null)] as const);
    found.push({
      ...{ id, recipe, sets, steps },
      state: isDone ? "succeeded" : "unfinished",
      step: isDone ? steps : await checkpointedStep(folderOf(id)),
      wanted: Object.fromEntries(picked.filter(([, files]) => files.length > 0)),
    });
  }
  return found;
}

/** Removes a run with all that it left. */
export async function removeRun(id: string): Promise<void> {
  const files = await keptFiles();
  await files.remove(folderOf(id));
  await files.removeEvents(id);
}

/** What a run says, and what is asked of it. */
export interface TabHost {
  readonly gpu: Gpu;
  emit(event: RunEventBody & { time: string }): void;
  control(): RunControl;
}

/** Begins a run. @throws {InputError} there is one of its name, or whatever is wrong with the recipe and its files */
export async function startRun(order: TabOrder, host: TabHost): Promise<RunResult> {
  const { id, models, datasets, sets = [], tuneSeconds } = order;
  const folder = folderOf(id);
  return await alone(id, async () => {
    // Before anything is kept: what is wrong is told, and nothing is left of it.
    const recipe = recipeOf(order.recipe, sets, models, datasets);
    const files = await keptFiles();
    if (await files.get(folder)) throw new InputError("there is a run of this name", { where: id });
    const kept: KeptOrder = {
      ...{ recipe: order.recipe, sets, steps: recipe.train.steps },
      ...{ models: withoutContent(models), datasets: withoutContent(datasets) },
    };
    await files.put([
      [RUNS, { modified: Date.now() }],
      [folder, { modified: Date.now() }],
      [`${folder}/${ORDER}`, { content: new Blob([JSON.stringify(kept)]), modified: Date.now() }],
    ]);
    try {
      return await attempt(id, recipe, { models, datasets }, host, { resume: false, tuneSeconds });
    } catch (error) {
      // Of a run that never came to its first checkpoint nothing can be continued.
      if (await checkpointedStep(folder) === 0) await removeRun(id);
      throw error;
    }
  });
}

/**
 * Goes on with a run from its newest checkpoint, or from its beginning where it has none.
 *
 * @param picked What was picked again, by the name of its model or dataset
 * @throws {InputError} something is missing, or is not what the run began with
 */
export async function resumeRun(
  id: string,
  picked: Readonly<Record<string, Files>>,
  host: TabHost,
): Promise<RunResult> {
  return await alone(id, async () => {
    const text = await system.readTextFile(`${folderOf(id)}/${ORDER}`).catch((cause) => {
      throw new InputError("there is no such run in this browser", { where: id, cause });
    });
    const kept = JSON.parse(text) as KeptOrder;
    const again = (of: KeptOrder["models"]): Record<string, Files> =>
      Object.fromEntries(
        Object.entries(of).map(([name, files]) => [name, pickedAgain(name, files, picked[name] ?? {})]),
      );
    const [models, datasets] = [again(kept.models), again(kept.datasets)];
    const recipe = recipeOf(kept.recipe, kept.sets, models, datasets);
    return await attempt(id, recipe, { models, datasets }, host, { resume: true });
  });
}

function pickedAgain(
  name: string,
  files: Readonly<Record<string, string | null>>,
  picked: Files,
): Files {
  const missing = Object.keys(files).filter((file) => files[file] === null && picked[file] === undefined);
  if (missing.length > 0) {
    throw new InputError(`pick again what the run began with: ${missing.join(", ")} is missing`, {
      where: name,
    });
  }
  return Object.fromEntries(Object.entries(files).map(([file, url]) => [file, url ?? picked[file]!]));
}

function withoutContent(of: TabOrder["models"]): KeptOrder["models"] {
  const names = (files: Files) =>
    Object.fromEntries(
      Object.entries(files).map(([name, file]) => [name, typeof file === "string" ? file : null]),
    );
  return Object.fromEntries(Object.entries(of).map(([name, files]) => [name, names(files)]));
}

/** The recipe with paths in the place of names. @throws {InputError} */
function recipeOf(
  written: unknown,
  sets: readonly string[],
  models: TabOrder["models"],
  datasets: TabOrder["datasets"],
): Recipe {
  const withPaths = mapRecipePaths(applySets(written, sets), ({ field, of, path }) => {
    const [kind, files] = of === "model" ? ["model", models[path]] : ["dataset", datasets[path]];
    if (of === "folder") return path;
    if ((of !== "model" && of !== "dataset") || !files) {
      throw new InputError(`there is no ${of} ${JSON.stringify(path)} in this tab`, {
        where: `recipe ${field}`,
      });
    }
    const names = Object.keys(files);
    const isFile = kind === "dataset" || (names.length === 1 && /\.gguf$/i.test(names[0]!));
    return isFile ? `${placeOf(kind!, path)}/${names[0]}` : placeOf(kind!, path);
  });
  return parseRecipe(withPaths);
}

const placeOf = (kind: string, name: string) => `/${kind}s/${name}`;

async function attempt(
  id: string,
  recipe: Recipe,
  { models, datasets }: Pick<TabOrder, "models" | "datasets">,
  host: TabHost,
  { resume, tuneSeconds }: { readonly resume: boolean; readonly tuneSeconds?: number | undefined },
): Promise<RunResult> {
  for (const [name, files] of Object.entries(models)) showFiles(placeOf("model", name), await opened(files));
  for (const [name, files] of Object.entries(datasets)) {
    showFiles(placeOf("dataset", name), await opened(files));
  }
  const kept = await keptFiles();
  let failure: unknown;
  const emit = (body: RunEventBody) => {
    const event = { ...body, time: new Date().toISOString() };
    host.emit(event);
    if (event.type === "heartbeat") return;
    const keeping = event.type === "tuned" ? keepHere(kept, event) : undefined;
    Promise.all([kept.addEvent(id, event), keeping]).catch((error) => failure ??= error);
  };
  const control = () => {
    if (failure !== undefined) throw failure;
    return host.control();
  };
  // A run before this one may have gone on with kernels that its checkpoint named.
  host.gpu.prefer(undefined);
  const result = await distillRun(recipe, {
    ...{ folder: folderOf(id), resume, resumeLimit: Infinity, emit, control },
    ...{ gpu: host.gpu, registry: new Registry().addAll(builtins) },
    tuning: await tuningHere(kept, tuneSeconds),
  });
  emit({ type: "result", result });
  return result;
}

async function opened(files: Files): Promise<Record<string, TabFile>> {
  const all = Object.entries(files).map(async ([name, file]) =>
    [name, typeof file === "string" ? await remoteFile(file) : blobFile(file)] as const
  );
  return Object.fromEntries(await Promise.all(all));
}

/** Does the work while no other tab works on the run. */
async function alone<T>(id: string, work: () => Promise<T>): Promise<T> {
  return await navigator.locks.request(`limbeck run ${id}`, { ifAvailable: true }, async (lock) => {
    if (lock) return await work();
    throw new LimbeckError(`${id}: another tab works on this run`, { hint: "Look at it there." });
  });
}
