/**
 * Checking a recipe.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { InputError } from "../../base/errors.ts";
import { canonicalJson } from "../../base/json.ts";
import { describeProblems, type RecipeProblem } from "./problems.ts";
import type { Recipe, TeacherCacheRecipe } from "./recipe.ts";
import { deriveDefaults } from "./schema/defaults.ts";
import { recipeSchema } from "./schema/mod.ts";

/** A recipe that breaks rules: `problems` has one entry for each, with its path. */
export class RecipeError extends InputError {
  override readonly code = "bad_recipe";
  readonly problems: readonly RecipeProblem[];

  constructor(where: string, problems: readonly RecipeProblem[]) {
    const count = problems.length === 1 ? "1 problem" : `${problems.length} problems`;
    const lines = problems.map(({ path, message }) => `\n  ${path || "(whole recipe)"}: ${message}`);
    super(`${count} in the recipe${lines.join("")}`, {
      where,
      hint: "`limbeck init` writes a recipe with every field explained; `limbeck validate FILE` checks one.",
    });
    this.problems = problems;
  }
}

/**
 * Checks a recipe and fills in its defaults. Paths are left as they are.
 *
 * @param where how errors name the recipe, such as its file
 * @throws {RecipeError} with every problem at once
 */
export function parseRecipe(value: unknown, where = "recipe"): Recipe {
  const result = recipeSchema.safeParse(deriveDefaults(value));
  if (result.success) return result.data;
  throw new RecipeError(where, describeProblems(result.error.issues, value));
}

/** SHA-256 (hex) of what decides a run's numbers: all of the recipe but `evaluate`, `output`, `limits` and where a cache lies. */
export function recipeHash(recipe: Recipe): string {
  const { evaluate: _evaluate, output: _output, limits: _limits, ...decisive } = recipe;
  const { teachers, ...teacher } = decisive.teacher;
  decisive.teacher = {
    ...withoutFolder(teacher),
    ...(teachers ? { teachers: teachers.map(withoutFolder) } : {}),
  };
  return createHash("sha256").update(canonicalJson(decisive)).digest("hex");
}

/** What is kept of a teacher without where that lies. */
function withoutFolder<T extends { cache?: TeacherCacheRecipe }>(teacher: T): T {
  if (!teacher.cache) return teacher;
  const { folder: _folder, ...kept } = teacher.cache;
  return { ...teacher, cache: kept };
}
