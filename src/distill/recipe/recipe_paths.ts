/**
 * The files and folders that a recipe names.
 *
 * @module
 */
import type { Recipe } from "./recipe.ts";
import { InputError } from "../../base/errors.ts";

/** What a run reads, with the field of the recipe that names it. */
export function recipePaths(recipe: Recipe): { field: string; path: string }[] {
  const named: [string, string | undefined][] = [
    ["teacher.model", recipe.teacher.model],
    ["student.model", recipe.student.model === "teacher" ? undefined : recipe.student.model],
    ["data.train", recipe.data.train],
    ["data.heldOut", recipe.data.heldOut],
  ];
  return named.flatMap(([field, path]) => path === undefined ? [] : [{ field, path }]);
}

/**
 * Checks that everything is there that a recipe names, before anything is made.
 *
 * @throws {InputError} with every path that is not
 */
export async function checkRecipePaths(recipe: Recipe): Promise<void> {
  const problems: string[] = [];
  for (const { field, path } of recipePaths(recipe)) {
    try {
      await Deno.stat(path);
    } catch (error) {
      const missing = error instanceof Deno.errors.NotFound;
      problems.push(
        `${field}: ${path}: ${missing ? "there is no such file or folder" : (error as Error).message}`,
      );
    }
  }
  if (problems.length === 0) return;
  throw new InputError(problems.join("\n"), {
    hint:
      "Paths in a recipe are relative to the recipe's own folder; those given with --set to the working folder.",
  });
}
