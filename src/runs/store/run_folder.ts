/**
 * The folder of a run: made once, locked while someone works in it, found again by its id or path.
 *
 * ```
 * <data>/runs/<id>/
 *   recipe.json     the resolved recipe        manifest.json   what made the run
 *   events.jsonl    everything it said         metrics.jsonl   the rows that hold
 *   checkpoints/    adapter/  base/  merged/   report.html     console.log
 *   child/          what the training process is started with
 *   run.lock        locked by the process that works on the run
 * ```
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename, join, resolve } from "@std/path";
import project from "../../../deno.json" with { type: "json" };
import { type ExitCode, InputError } from "../../base/errors.ts";
import { exists, isFile, writeTextAtomically } from "../../formats/files.ts";
import { checkPlugins, identifyPlugins } from "../child/plugin_identity.ts";
import { machineProvider } from "../child/provider/choice.ts";
import { EVENTS_FILE, readEvents } from "./event_log.ts";
import { checkPaths } from "../../distill/recipe/recipe_paths.ts";
import { hubModels } from "../task/hub_models.ts";
import { withoutPattern } from "../../text/read/files.ts";
import {
  isTask,
  mapRunRecipePaths,
  parseRunRecipe,
  type RunRecipe,
  runRecipeHash,
  runRecipePaths,
} from "../task/run_recipe.ts";
import { runFolder } from "./layout.ts";
import { newRunId } from "./run_id.ts";
import { isLocked, lock } from "./run_lock.ts";
import type { NewRun, RunManifest, Store, StoredRun } from "./store.ts";
import { shellQuoted } from "../../base/quoting.ts";

export type { RunManifest } from "./store.ts";

/** A run that this process alone may work on until it is released. */
export interface LockedRun {
  readonly store: Store;
  readonly id: string;
  readonly folder: string;
  readonly manifest: RunManifest;
  readonly recipe: RunRecipe;
  /** Lets others work on the run. Calling it twice is harmless. */
  release(): void;
}

/** How to make a run. */
export interface CreateRunOptions {
  store: Store;
  recipe: RunRecipe;
  /** An empty folder, or one that is made; of its own below the store's when absent. */
  folder?: string | undefined;
  /** Plugin modules: absolute paths, and packages with their version. */
  plugins?: readonly string[];
  /** What to find it by. */
  metadata?: Readonly<Record<string, string>>;
}

/**
 * Makes the folder of a new run, locks it, and keeps the run in the store, queued for this process.
 *
 * @throws {InputError} a path that the recipe names is not there; the output folder holds something already, or cannot be made
 */
export async function createRun(options: CreateRunOptions): Promise<LockedRun> {
  const { store, plugins = [], metadata = {} } = options;
  await checkPaths(runRecipePaths(options.recipe));
  const recipe = await withListedFiles(options.recipe);
  const manifest = newManifest(recipe, await identifyPlugins(plugins), await hubModels(recipe));
  const folder = resolve(
    options.folder ?? (isTask(recipe) ? undefined : recipe.output.folder) ?? runFolder(store, manifest.id),
  );
  const release = await makeRunFolder({ manifest, recipe, folder });
  try {
    // A run that had this folder and lost it to whoever deleted it.
    const lost = await store.findByFolder(folder);
    if (lost) await store.remove(lost.id);
    await store.create({ manifest, recipe, folder, worker: "command", metadata });
  } catch (error) {
    await Deno.remove(folder, { recursive: true }).catch(() => {});
    release();
    throw error;
  }
  return { store, id: manifest.id, folder, manifest, recipe, release };
}

/** A recipe in which the files of a dataset are named that a `*` stood for. */
async function withListedFiles(recipe: RunRecipe): Promise<RunRecipe> {
  const listed = new Map<string, string>();
  for (const { of, path } of runRecipePaths(recipe)) {
    if (of === "dataset") listed.set(path, await withoutPattern(path));
  }
  return mapRunRecipePaths(recipe, ({ of, path }) => of === "dataset" ? listed.get(path)! : path);
}

/** What makes a run that begins now. */
export function newManifest(
  recipe: RunRecipe,
  plugins: RunManifest["plugins"],
  models?: RunManifest["models"],
): RunManifest {
  const provider = machineProvider();
  return {
    id: newRunId(),
    createdAt: new Date().toISOString(),
    limbeck: project.version,
    deno: Deno.version.deno,
    recipeHash: runRecipeHash(recipe),
    plugins,
    ...(provider === "native" ? {} : { provider }),
    ...(models ? { models } : {}),
  };
}

/**
 * Makes and locks a run's folder.
 *
 * @returns lets go of the lock
 * @throws {InputError} the folder holds something already, or cannot be made
 */
async function makeRunFolder(
  { manifest, recipe, folder }: Pick<NewRun, "manifest" | "recipe" | "folder">,
): Promise<() => void> {
  const made = await makeEmptyFolder(folder);
  let release: (() => void) | undefined;
  try {
    release = await lock(folder);
    await writeTextAtomically(join(folder, "recipe.json"), JSON.stringify(recipe, null, 2) + "\n");
    await writeTextAtomically(join(folder, "manifest.json"), JSON.stringify(manifest, null, 2) + "\n");
    return release;
  } catch (error) {
    // Without a manifest the folder is no run, and would only be in the way of the next try.
    const own = release ? ["recipe.json", "run.lock"].map((name) => join(folder, name)) : [];
    for (const path of made ? [...own, folder] : own) await Deno.remove(path).catch(() => {});
    release?.();
    throw error;
  }
}

/**
 * Locks a run whose turn has come, and makes its folder where it has none yet.
 *
 * @throws {InputError} a file of it is damaged, a model, dataset or plugin is gone or changed, or another process works on it
 */
export async function takeRun(store: Store, run: StoredRun): Promise<LockedRun> {
  const { id, folder, manifest, recipe } = run;
  await checkPaths(runRecipePaths(recipe));
  const begun = await exists(join(folder, "manifest.json"));
  const release = begun ? await lock(folder) : await makeRunFolder(run);
  try {
    await checkPlugins(manifest.plugins);
    return { store, id, folder, manifest, recipe, release };
  } catch (error) {
    release();
    throw error;
  }
}

/**
 * Locks the run in a folder to resume it, and queues it for this process.
 *
 * @throws {InputError} no run there, a file of it is damaged, a model, dataset or plugin is gone or changed, another process works on
 * it, or it is done
 */
export async function openRun(folder: string, store: Store): Promise<LockedRun> {
  const known = await adoptRun(folder, store);
  const run = await takeRun(store, known);
  try {
    await settle(store, known, true);
    const { state } = (await store.get(run.id))!;
    // One that is queued already was not begun before its process ended.
    if (state !== "queued") await store.requeue(run.id, "command");
    return run;
  } catch (error) {
    run.release();
    throw error;
  }
}

/**
 * The run in a folder as the store knows it. A run that it does not know, such as one that was moved here from another machine, is
 * taken into it with all that its folder says.
 *
 * @throws {InputError} no run there, a file of it is damaged, or it is the copy of a run that is elsewhere
 */
export async function adoptRun(folder: string, store: Store): Promise<StoredRun> {
  const { manifest, recipe } = await readRun(folder);
  const path = resolve(folder);
  const known = await store.get(manifest.id);
  if (!known) {
    const begun = await exists(join(path, EVENTS_FILE));
    return await store.adopt(
      { manifest, recipe, folder: path, worker: "command" },
      begun ? await readEvents(path) : [],
    );
  }
  if (known.folder === path || await sameFolder(known.folder, path)) return known;
  if (await exists(join(known.folder, "manifest.json"))) {
    throw new InputError(`this is a copy of run ${manifest.id}, which is in ${known.folder}`, {
      where: path,
      hint: "Work on that one, or remove it first with `limbeck runs rm`.",
    });
  }
  return await store.move(manifest.id, path);
}

async function sameFolder(a: string, b: string): Promise<boolean> {
  try {
    return await Deno.realPath(a) === await Deno.realPath(b);
  } catch {
    return false;
  }
}

/**
 * Says of a run that it was interrupted, when it is said to run but nobody works on it.
 *
 * @param own whether this process holds its lock
 */
export async function settle(store: Store, run: StoredRun, own = false): Promise<StoredRun> {
  if (run.state !== "running" || (!own && isLocked(run.folder))) return run;
  await store.append(run.id, run.attempt, [{
    type: "state",
    state: "interrupted",
    message: "the process that watched over the run ended",
  }]);
  return (await store.get(run.id))!;
}

/**
 * What a run was made with, without locking it.
 *
 * @throws {InputError} no run there, or a file of it is damaged or was changed
 */
export async function readRun(folder: string): Promise<{ manifest: RunManifest; recipe: RunRecipe }> {
  const manifest = checkManifest(await readJson(join(folder, "manifest.json")), folder);
  const path = join(folder, "recipe.json");
  const recipe = parseRunRecipe(await readJson(path), path);
  if (runRecipeHash(recipe) !== manifest.recipeHash) {
    throw new InputError("the recipe was changed after the run began", {
      where: path,
      hint: "Put the old recipe back to resume, or begin a new run with the changed one.",
    });
  }
  return { manifest, recipe };
}

function checkManifest(value: unknown, folder: string): RunManifest {
  const manifest = value as Partial<RunManifest> | null;
  const whole = typeof manifest?.id === "string" && typeof manifest.recipeHash === "string" &&
    Array.isArray(manifest.plugins);
  if (whole) return manifest as RunManifest;
  throw new InputError("is not the manifest of a run", {
    where: join(folder, "manifest.json"),
    hint: "It is written once, when a run begins. Put it back from a copy, or begin a new run.",
  });
}

/**
 * The run that `name` means: a run id, the beginning of one, `last`, or the path of a run's folder.
 *
 * @throws {InputError} no such run, or several
 */
export async function findRun(name: string, store: Store): Promise<StoredRun> {
  const isFolder = name !== "" &&
    await isFile(join(name, "manifest.json"));
  if (isFolder) return await adoptRun(name, store);
  const ids = await store.ids();
  const matches = name === "last"
    ? ids.slice(-1)
    : name === ""
    ? []
    : ids.filter((id) => id.startsWith(name));
  if (matches.length === 1) return (await store.get(matches[0]!))!;
  if (matches.length > 1) {
    throw new InputError(
      `"${name}" is the beginning of ${matches.length} runs: ${matches.slice(0, 8).join(", ")}`,
    );
  }
  const near = ids.length === 0
    ? "There are no runs yet."
    : `Latest runs: ${ids.slice(-5).reverse().join(", ")}.`;
  if (name !== "" && await exists(name)) {
    throw new InputError("is no run: there is no manifest.json in it", { where: resolve(name), hint: near });
  }
  throw new InputError(`there is no run "${name}" in ${store.folder}`, { hint: near });
}

/**
 * Removes a run and all that it wrote.
 *
 * @throws {InputError} a process works on it
 */
export async function removeRun(
  store: Store,
  { id, folder }: Pick<StoredRun, "id" | "folder">,
): Promise<void> {
  if (!await exists(folder)) return await store.remove(id);
  const release = await lock(folder);
  try {
    await store.remove(id);
    await Deno.remove(folder, { recursive: true });
  } finally {
    release();
  }
}

/**
 * Removes a new run that ended on bad input before anything of it was planned: it holds nothing to look at or to go on with, and would
 * be in the way of the next try.
 *
 * @returns whether it is gone
 */
export async function removeUnbegun(
  { store, id, folder }: LockedRun,
  exitCode: number | undefined,
): Promise<boolean> {
  if (exitCode !== BAD_INPUT || (await readEvents(folder)).some(({ type }) => type === "plan")) return false;
  await removeRun(store, { id, folder });
  return true;
}

const BAD_INPUT: ExitCode = 3;

/** @returns whether the folder was not there before */
async function makeEmptyFolder(folder: string): Promise<boolean> {
  const names: string[] = [];
  let there = true;
  try {
    for await (const { name } of Deno.readDir(folder)) names.push(name);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) there = false;
    else throw unmakeable(folder, cause);
  }
  if (names.includes("manifest.json")) {
    throw new InputError("a run already lives in this output folder", {
      where: folder,
      hint:
        `\`limbeck resume ${shellQuoted(folder)}\` continues it, \`limbeck runs rm ${
          shellQuoted(folder)
        }\` ` +
        "removes it; else choose another output.folder, or leave it out.",
    });
  }
  // A lock alone was left by a process that was killed at its very beginning.
  if (names.some((name) => name !== "run.lock")) {
    throw new InputError("the output folder is not empty", {
      where: folder,
      hint: "Choose another output.folder, or leave it out: each run then gets a folder of its own.",
    });
  }
  try {
    await Deno.mkdir(folder, { recursive: true });
  } catch (cause) {
    throw unmakeable(folder, cause);
  }
  return !there;
}

function unmakeable(folder: string, cause: unknown): InputError {
  return new InputError(`the output folder cannot be made: ${(cause as Error).message}`, {
    where: folder,
    hint: "Choose another output.folder (--output), or another data folder (--data).",
    cause,
  });
}

async function readJson(path: string): Promise<unknown> {
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (cause) {
    throw new InputError(`there is no run here: ${basename(path)} cannot be read`, { where: path, cause });
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new InputError(`is not valid JSON: ${(cause as Error).message}`, { where: path, cause });
  }
}
