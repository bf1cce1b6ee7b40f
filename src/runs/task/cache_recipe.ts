/**
 * The task of making a teacher's cache, as it is written.
 *
 * @module
 */
import { isObject } from "../../base/json.ts";
import { parseRecipe, RecipeError } from "../../distill/recipe/parse.ts";
import type { Recipe } from "../../distill/recipe/recipe.ts";
import { cachesOf } from "../../distill/recipe/teachers.ts";

/** Makes the cache that a recipe's teacher is kept in, ahead of the runs that train on it. */
export interface CacheTask {
  readonly task: "cache";
  /** With `teacher.cache`, or that of one of several. */
  readonly recipe: Recipe;
}

/**
 * Checks one and fills in the defaults of its recipe.
 *
 * @throws {RecipeError} with every problem at once
 */
export function parseCacheTask(
  { task: _, ...given }: Readonly<Record<string, unknown>>,
  where: string,
): CacheTask {
  const problems = Object.keys(given).filter((name) => name !== "recipe")
    .map((path) => ({ path, message: "is no field of a cache task: it has its recipe alone" }));
  if (!isObject(given.recipe)) {
    problems.push({ path: "recipe", message: "must be the recipe of a distillation" });
  }
  if (problems.length > 0) throw new RecipeError(where, problems);
  const recipe = within(where, () => parseRecipe(given.recipe, where));
  if (cachesOf(recipe.teacher).length > 0) return { task: "cache", recipe };
  throw new RecipeError(where, [{
    path: "recipe.teacher.cache",
    message: "must say what is kept of the teacher, such as {payload: hidden} or {topK: 64}",
  }]);
}

/** Names the problems of a recipe by their place in the task. */
function within<T>(where: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof RecipeError)) throw error;
    throw new RecipeError(
      where,
      error.problems.map((problem) => ({
        ...problem,
        path: ["recipe", problem.path].filter(Boolean).join("."),
      })),
    );
  }
}
