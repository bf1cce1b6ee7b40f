/**
 * Which run each step of a chain is: its folder is named by what goes into it, so a step whose inputs have not changed is the same run as
 * before, and one whose inputs have is another.
 *
 * @module
 */
import { createHash } from "node:crypto";
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { InputError } from "../../base/errors.ts";
import { checkPaths } from "../../distill/recipe/recipe_paths.ts";
import { exists, openFile, unreadable } from "../../formats/files.ts";
import { fingerprint } from "../../formats/huggingface/huggingface.ts";
import type { IdentifiedPlugin } from "../child/plugin_identity.ts";
import { adoptRun, createRun, type LockedRun, openRun } from "../store/run_folder.ts";
import type { Store } from "../store/store.ts";
import { mapRunRecipePaths, type RunRecipe, runRecipeHash, runRecipePaths } from "../task/run_recipe.ts";
import { type ChainStep, leftAt, stepNamed } from "./chain_file.ts";

/** A step with the run that it is. */
export interface PlannedStep {
  readonly name: string;
  /** Of all that decides what comes out: what it does, and what goes into it. SHA-256, hex. */
  readonly hash: string;
  /** Folder of its run, absolute. */
  readonly folder: string;
  /** What it does; paths stand where it named steps. */
  readonly recipe: RunRecipe;
}

/** Raised when the same inputs would give another result, so that nothing of before is taken for done. */
const VERSION = 1;

/**
 * Plans the steps. All that they read is there, and is read once to tell what it holds.
 *
 * @param options.folder The data folder, absolute
 * @param options.plugins Those that every step knows
 * @throws {InputError} with every path that is not there
 */
export async function planChain(
  steps: readonly ChainStep[],
  { folder, plugins }: { folder: string; plugins: readonly IdentifiedPlugin[] },
): Promise<PlannedStep[]> {
  const outside = steps.flatMap(({ name, recipe }) =>
    runRecipePaths(recipe).filter(({ path }) => stepNamed(path) === undefined)
      .map((path) => ({ ...path, field: `${name}: ${path.field}` }))
  );
  await checkPaths(outside);
  const contents = new Map<string, string>();
  for (const { of, path } of outside) {
    if (of !== "folder" && !contents.has(path)) contents.set(path, await contentHash(path));
  }
  const planned: PlannedStep[] = [];
  const before = (path: string) => {
    const name = stepNamed(path);
    return name === undefined ? undefined : planned.find((step) => step.name === name)!;
  };
  for (const { name, recipe } of steps) {
    const identified = mapRunRecipePaths(recipe, ({ path }) => before(path)?.hash ?? contents.get(path));
    const hash = sha256(
      JSON.stringify([VERSION, runRecipeHash(identified), plugins.map((plugin) => plugin.sha256)]),
    );
    planned.push({
      name,
      hash,
      folder: join(folder, "chains", `${name}-${hash.slice(0, 12)}`),
      recipe: mapRunRecipePaths(recipe, ({ of, path }) => {
        const step = before(path);
        return step ? join(step.folder, leftAt(of as "model" | "shape")) : path;
      }),
    });
  }
  return planned;
}

/** Whether a step's run has come to its end, and what it left is there. */
export async function isDone({ folder }: PlannedStep, store: Store): Promise<boolean> {
  if (!await exists(join(folder, "manifest.json"))) return false;
  const { state, result } = await adoptRun(folder, store);
  if (state !== "succeeded") return false;
  for (const path of Object.values(result?.paths ?? {})) {
    if (await exists(join(folder, path))) continue;
    throw new InputError(`the step is done, but ${path} is gone that it left`, {
      where: folder,
      hint: "`limbeck runs rm FOLDER` removes the run, so that the chain makes it again.",
    });
  }
  return true;
}

/**
 * Makes and locks the run of a step, or locks it again where it has begun.
 *
 * @throws {InputError} another process works on it, or it was cancelled
 */
export async function beginStep(
  { name, folder, recipe }: PlannedStep,
  { store, plugins, chain }: { store: Store; plugins: readonly IdentifiedPlugin[]; chain: string },
): Promise<{ run: LockedRun; resume: boolean }> {
  if (await exists(join(folder, "manifest.json"))) {
    if ((await adoptRun(folder, store)).state === "cancelled") {
      throw new InputError(`step "${name}" was cancelled, which is for good`, {
        where: folder,
        hint: "`limbeck runs rm FOLDER` removes the run, so that the chain begins it anew.",
      });
    }
    return { run: await openRun(folder, store), resume: true };
  }
  const metadata = { chain, step: name };
  const paths = plugins.map((plugin) => plugin.path);
  return { run: await createRun({ store, recipe, folder, plugins: paths, metadata }), resume: false };
}

/** SHA-256 of a file, or of all files of a folder but what is only for people to read. */
async function contentHash(path: string): Promise<string> {
  try {
    if (!(await Deno.stat(path)).isDirectory) return await fileHash(path);
    const names: string[] = [];
    for await (const { name } of Deno.readDir(path)) {
      const isModel = !name.startsWith(".") && !/\.md$/i.test(name);
      if (isModel && (await Deno.stat(join(path, name))).isFile) names.push(name);
    }
    const lines = [];
    for (const name of names.sort()) lines.push(`${await fileHash(join(path, name))}  ${name}\n`);
    return sha256(lines.join(""));
  } catch (error) {
    throw error instanceof InputError ? error : unreadable(path, error);
  }
}

async function fileHash(path: string): Promise<string> {
  const source = await openFile(path);
  try {
    return await fingerprint([source]);
  } finally {
    source.close?.();
  }
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
