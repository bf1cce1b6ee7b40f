/**
 * What a run is to do: a recipe for distilling, or a task.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { InputError } from "../../base/errors.ts";
import { canonicalJson } from "../../base/json.ts";
import { parseRecipe, recipeHash } from "../../distill/recipe/parse.ts";
import { mapRecipePaths, type RecipePath, recipePaths } from "../../distill/recipe/paths.ts";
import type { Recipe } from "../../distill/recipe/recipe.ts";
import { parseTask, saysTask, type Task } from "./task.ts";
import { mapTaskPaths, taskPaths } from "./task_paths.ts";

/** What a run is to do. */
export type RunRecipe = Recipe | Task;

/** What runs do, in a word each. */
export const RUN_TASKS = [
  ...["distill", "merge", "residual", "shrink", "evaluate", "cache"] as const,
  ...["extract", "export", "merge-adapters"] as const,
] as const;

/** See {@linkcode RUN_TASKS}. */
export type RunTask = typeof RUN_TASKS[number];

/** Steps of a task: hundredths of its work. */
export const TASK_STEPS = 100;

/** Seconds that a task may be silent: one large tensor may take minutes. */
const TASK_WATCHDOG_SECONDS = 900;

/** Whether a run is to do something else than distil. */
export function isTask(recipe: RunRecipe): recipe is Task {
  return saysTask(recipe);
}

/** What a run does, in a word. */
export function taskOf(recipe: RunRecipe): RunTask {
  return isTask(recipe) ? recipe.task : "distill";
}

/**
 * Checks what a run is to do and fills in its defaults. Paths are left as they are.
 *
 * @param where How errors name it, such as its file
 * @throws {RecipeError} with every problem at once
 */
export function parseRunRecipe(value: unknown, where?: string): RunRecipe {
  return saysTask(value) ? parseTask(value, where) : parseRecipe(value, where);
}

/** SHA-256 (hex) of what decides what comes out of a run. */
export function runRecipeHash(recipe: RunRecipe): string {
  if (!isTask(recipe)) return recipeHash(recipe);
  return createHash("sha256").update(canonicalJson(recipe)).digest("hex");
}

/** The paths of a recipe or a task, checked or not. */
export function runRecipePaths(recipe: unknown): RecipePath[] {
  return saysTask(recipe) ? taskPaths(recipe) : recipePaths(recipe);
}

/** A copy of a recipe or a task, checked or not, with other paths; undefined takes a folder that is written to away. */
export function mapRunRecipePaths<R>(recipe: R, map: (path: RecipePath) => string | undefined): R {
  return saysTask(recipe)
    ? mapTaskPaths(recipe, (path) => map(path) ?? path.path)
    : mapRecipePaths(recipe, map);
}

/** Steps until a run is done. */
export function stepsOf(recipe: RunRecipe): number {
  return isTask(recipe) ? TASK_STEPS : recipe.train.steps;
}

/** Seconds after which a run's process that is silent is ended. */
export function watchdogSecondsOf(recipe: RunRecipe): number {
  return isTask(recipe) ? TASK_WATCHDOG_SECONDS : recipe.limits.watchdogSeconds;
}

/** Whether a run works on the GPU: merges and residuals are made by the processor alone. */
export function needsGpu(recipe: RunRecipe): boolean {
  return !isTask(recipe) || ["shrink", "evaluate", "cache"].includes(recipe.task);
}

/**
 * The recipe of a run that distilled.
 *
 * @param where Its folder, for the error
 * @throws {InputError} it did something else
 */
export function distillationOf(recipe: RunRecipe, where = "run"): Recipe {
  if (!isTask(recipe)) return recipe;
  throw new InputError(`this run is a ${recipe.task}: it trained nothing`, {
    where,
    hint: "Name a run that distilled; of a task there is only what it left in its folder.",
  });
}
