/**
 * The folder of a run: made once, locked while someone works in it, found again by its id or path.
 *
 * ```
 * runs/<id>/
 *   recipe.json     the resolved recipe        manifest.json   what made the run
 *   events.jsonl    everything it said         metrics.jsonl   the rows that hold
 *   checkpoints/    adapter/  base/  merged/   report.html     console.log
 *   child/          what the training process is started with
 *   run.lock        locked by the process that works on the run
 * ```
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { basename, join, resolve } from "@std/path";
import project from "../../deno.json" with { type: "json" };
import { parseRecipe, type Recipe, recipeHash } from "../distill/recipe.ts";
import { InputError } from "../errors.ts";
import { unreadable, writeTextAtomically } from "../formats/files.ts";
import { checkPlugins, type IdentifiedPlugin, identifyPlugins } from "./plugin_identity.ts";
import { checkRecipePaths } from "./recipe_paths.ts";
import { isRunId, newRunId } from "./run_id.ts";
import { lock } from "./run_lock.ts";
import { shellQuoted } from "./shell_quoted.ts";

export { isLocked } from "./run_lock.ts";

/** What made a run; written once. */
export interface RunManifest {
  id: string;
  /** ISO 8601, UTC. */
  createdAt: string;
  /** Version of Limbeck. */
  limbeck: string;
  deno: string;
  recipeHash: string;
  /** Plugin modules in the order they were given. */
  plugins: IdentifiedPlugin[];
}

/** A run that this process alone may work on until it is released. */
export interface LockedRun {
  readonly folder: string;
  readonly manifest: RunManifest;
  readonly recipe: Recipe;
  /** Lets others work on the run. Calling it twice is harmless. */
  release(): void;
}

/** How to make a run. */
export interface CreateRunOptions {
  recipe: Recipe;
  /** Folder of runs, used where the recipe names no folder. */
  runsFolder?: string;
  /** Plugin modules: absolute paths, and packages with their version. */
  plugins?: readonly string[];
}

/**
 * Makes and locks the folder of a new run.
 *
 * @throws {InputError} a path that the recipe names is not there; the output folder holds something already, or cannot be made
 */
export async function createRun(options: CreateRunOptions): Promise<LockedRun> {
  await checkRecipePaths(options.recipe);
  const { recipe, plugins = [] } = options;
  const manifest: RunManifest = {
    id: newRunId(),
    createdAt: new Date().toISOString(),
    limbeck: project.version,
    deno: Deno.version.deno,
    recipeHash: recipeHash(recipe),
    plugins: await identifyPlugins(plugins),
  };
  const folder = resolve(recipe.output.folder ?? join(options.runsFolder ?? "runs", manifest.id));
  const made = await makeEmptyFolder(folder);
  let release: (() => void) | undefined;
  try {
    release = await lock(folder);
    await writeTextAtomically(join(folder, "recipe.json"), JSON.stringify(recipe, null, 2) + "\n");
    await writeTextAtomically(join(folder, "manifest.json"), JSON.stringify(manifest, null, 2) + "\n");
    return { folder, manifest, recipe, release };
  } catch (error) {
    // Without a manifest the folder is no run, and would only be in the way of the next try.
    const own = release ? ["recipe.json", "run.lock"].map((name) => join(folder, name)) : [];
    for (const path of made ? [...own, folder] : own) await Deno.remove(path).catch(() => {});
    release?.();
    throw error;
  }
}

/**
 * Locks an existing run, to resume it.
 *
 * @throws {InputError} no run there, a file of it is damaged, a model, dataset or plugin is gone or changed, or another process works on it
 */
export async function openRun(folder: string): Promise<LockedRun> {
  const { manifest, recipe } = await readRun(folder);
  await checkRecipePaths(recipe);
  const release = await lock(folder);
  try {
    await checkPlugins(manifest.plugins);
    return { folder: resolve(folder), manifest, recipe, release };
  } catch (error) {
    release();
    throw error;
  }
}

/**
 * What a run was made with, without locking it.
 *
 * @throws {InputError} no run there, or a file of it is damaged or was changed
 */
export async function readRun(folder: string): Promise<{ manifest: RunManifest; recipe: Recipe }> {
  const manifest = checkManifest(await readJson(join(folder, "manifest.json")), folder);
  const path = join(folder, "recipe.json");
  const recipe = parseRecipe(await readJson(path), path);
  if (recipeHash(recipe) !== manifest.recipeHash) {
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
 * The folder of the run that `name` means: a run id, the beginning of one, `last`, or the path of a run's folder.
 *
 * @throws {InputError} no such run, or several
 */
export async function findRun(name: string, runsFolder = "runs"): Promise<string> {
  const isFolder = name !== "" &&
    await Deno.stat(join(name, "manifest.json")).then((info) => info.isFile, () => false);
  if (isFolder) return resolve(name);
  const ids = await runIds(runsFolder);
  const matches = name === "last"
    ? ids.slice(-1)
    : name === ""
    ? []
    : ids.filter((id) => id.startsWith(name));
  if (matches.length === 1) return resolve(runsFolder, matches[0]);
  if (matches.length > 1) {
    throw new InputError(
      `"${name}" is the beginning of ${matches.length} runs: ${matches.slice(0, 8).join(", ")}`,
    );
  }
  const near = ids.length === 0
    ? "There are no runs yet."
    : `Latest runs: ${ids.slice(-5).reverse().join(", ")}.`;
  const exists = name !== "" && await Deno.stat(name).then(() => true, () => false);
  if (exists) {
    throw new InputError("is no run: there is no manifest.json in it", { where: resolve(name), hint: near });
  }
  throw new InputError(`there is no run "${name}" in ${resolve(runsFolder)}`, { hint: near });
}

/** Ids of the runs in a folder, oldest first. */
export async function runIds(runsFolder: string): Promise<string[]> {
  const ids: string[] = [];
  try {
    for await (const entry of Deno.readDir(runsFolder)) {
      if (entry.isDirectory && isRunId(entry.name)) ids.push(entry.name);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw unreadable(runsFolder, error);
  }
  return ids.sort();
}

/**
 * Removes a run and all that it wrote.
 *
 * @throws {InputError} a process works on it
 */
export async function removeRun(folder: string): Promise<void> {
  const release = await lock(folder);
  try {
    await Deno.remove(folder, { recursive: true });
  } finally {
    release();
  }
}

/** @returns whether the folder was not there before */
async function makeEmptyFolder(folder: string): Promise<boolean> {
  const names: string[] = [];
  let exists = true;
  try {
    for await (const { name } of Deno.readDir(folder)) names.push(name);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) exists = false;
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
  return !exists;
}

function unmakeable(folder: string, cause: unknown): InputError {
  return new InputError(`the output folder cannot be made: ${(cause as Error).message}`, {
    where: folder,
    hint: "Choose another output.folder (--output), or another folder of runs (--runs).",
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
