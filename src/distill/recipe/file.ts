/**
 * Recipes on disk: YAML, JSON or TypeScript, with changes from the command line.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { dirname, extname, resolve, toFileUrl } from "@std/path";
import { system } from "../../base/system.ts";
import { isObject } from "../../base/json.ts";
// @ts-types="../../../types/std_yaml.d.ts"
import { parse as parseYaml } from "@std/yaml";
import { InputError, UsageError } from "../../base/errors.ts";
import { unreadable } from "../../formats/files.ts";
import { checkWrittenSize, readWrittenFile } from "../../formats/written_file.ts";
import { type Recipe } from "./recipe.ts";
import { loadTask } from "../../evaluation/tasks/task.ts";
import { parseRecipe } from "./parse.ts";
import { absolutePaths } from "./paths.ts";
import { defaultObjective } from "./schema/objective.ts";

/** Options of {@linkcode loadRecipe}. */
export interface LoadRecipeOptions {
  /** Changes such as `train.steps=100`, applied before the recipe is checked. Paths in them are relative to `cwd`. */
  sets?: readonly string[];
  /** Working folder for paths in `sets`; the process's own by default. */
  cwd?: string;
}

const NAMES = { kind: "recipe", extensions: ".yaml, .json or .ts" };

/**
 * Reads, checks and completes a recipe. Its paths come out absolute: they are relative to the recipe's own folder.
 *
 * A `.ts` or `.js` recipe is a program and runs with this process's permissions; its default export is the recipe.
 *
 * @throws {InputError} no such file, or it cannot be read as what its name says
 * @throws {RecipeError} rules that are broken, all at once
 * @throws {UsageError} a change that cannot be applied
 *
 * @example
 * ```ts ignore
 * const recipe = await loadRecipe("examples/stories/recipe.yaml", { sets: ["train.steps=10"] });
 * ```
 */
export async function loadRecipe(path: string, options: LoadRecipeOptions = {}): Promise<Recipe> {
  const absolute = resolve(path);
  const written = absolutePaths(await readRecipe(absolute), dirname(absolute));
  const changed = applySets(written, options.sets ?? []);
  return parseRecipe(await withTaskFiles(absolutePaths(changed, options.cwd ?? system.cwd())), path);
}

/** A recipe with tasks in the place of paths of their files. */
async function withTaskFiles(recipe: unknown): Promise<unknown> {
  if (!isObject(recipe) || !isObject(recipe.evaluate) || !Array.isArray(recipe.evaluate.tasks)) return recipe;
  const tasks: unknown[] = [];
  for (const task of recipe.evaluate.tasks) {
    tasks.push(typeof task === "string" && task !== "" ? await loadTask(task) : task);
  }
  return { ...recipe, evaluate: { ...recipe.evaluate, tasks } };
}

/**
 * Reads a recipe as it is written, with changes, without checking it or making its paths absolute: for a service that knows models and
 * data by names.
 *
 * @throws {InputError} as {@linkcode loadRecipe}
 */
export async function readWrittenRecipe(path: string, sets: readonly string[] = []): Promise<unknown> {
  return applySets(await readRecipe(resolve(path)), sets);
}

async function readRecipe(path: string): Promise<unknown> {
  const extension = extname(path).toLowerCase();
  if ([".ts", ".js", ".mts", ".mjs"].includes(extension)) return await importRecipe(path);
  return await readWrittenFile(path, NAMES);
}

async function importRecipe(path: string): Promise<unknown> {
  try {
    await system.stat(path);
  } catch (cause) {
    throw unreadable(path, cause);
  }
  let module: { default?: unknown };
  try {
    module = await import(toFileUrl(path).href);
  } catch (cause) {
    throw new InputError(`cannot be run: ${(cause as Error).message}`, { where: path, cause });
  }
  if (module.default === undefined) {
    throw new InputError("exports no recipe", {
      where: path,
      hint: "Write `export default defineRecipe({ ... })`.",
    });
  }
  checkWrittenSize(module.default, path);
  return module.default;
}

/**
 * A copy of a recipe as written, with changes such as `train.steps=100`, `objective.0.weight=0.3` or `student.layers=[0,1]`.
 * Values are read as YAML, so texts need no quotes.
 *
 * @throws {UsageError} a change that is no `path=value` or whose path leads through something that has no fields
 */
export function applySets(recipe: unknown, sets: readonly string[]): unknown {
  const copy = structuredClone(recipe);
  for (const set of sets) {
    const equals = set.indexOf("=");
    const keys = set.slice(0, Math.max(equals, 0)).trim().split(".");
    if (equals < 1 || keys.some((key) => key === "")) {
      throw new UsageError(`--set ${set}: expected path=value`, {
        hint: "For example --set train.steps=100",
      });
    }
    if (keys.includes("__proto__")) throw new UsageError(`--set ${set}: there is no such field`);
    assign(copy, keys, parseSetValue(set, set.slice(equals + 1)), set);
  }
  return copy;
}

function parseSetValue(set: string, text: string): unknown {
  try {
    return parseYaml(text, { schema: "core" });
  } catch (cause) {
    throw new UsageError(`--set ${set}: the value cannot be read: ${(cause as Error).message}`, { cause });
  }
}

function assign(root: unknown, keys: readonly string[], value: unknown, set: string): void {
  let node = root;
  keys.forEach((key, depth) => {
    const here = keys.slice(0, depth).join(".") || "the recipe";
    const last = depth === keys.length - 1;
    if (Array.isArray(node)) {
      const index = Number(key);
      if (!/^\d+$/.test(key) || index > node.length) {
        throw new UsageError(`--set ${set}: ${here} is a list of ${node.length}; "${key}" is no place in it`);
      }
      if (last) node[index] = value;
      else node = node[index] ??= emptyFor(keys[depth + 1]);
    } else if (isObject(node)) {
      if (last) node[key] = value;
      else if (depth === 0 && key === "objective") node = node[key] ??= structuredClone(defaultObjective);
      else node = node[key] ??= emptyFor(keys[depth + 1]);
    } else {
      throw new UsageError(`--set ${set}: ${here} has no fields`);
    }
  });
}

/** What a missing parent must be so that `key` can be set in it. */
function emptyFor(key: string): unknown {
  return /^\d+$/.test(key) ? [] : {};
}
