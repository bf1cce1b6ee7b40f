/**
 * Looks whether the files and folders are there that a recipe names.
 *
 * @module
 */
import { system } from "../../base/system.ts";
import { inputPaths, type RecipePath } from "./paths.ts";
import type { Recipe } from "./recipe.ts";
import { InputError } from "../../base/errors.ts";
import { datasetFiles } from "../../text/read/files.ts";

/**
 * Checks that everything is there that a recipe names, before anything is made.
 *
 * @throws {InputError} with every path that is not
 */
export async function checkRecipePaths(recipe: Recipe): Promise<void> {
  await checkPaths(inputPaths(recipe));
}

/**
 * Checks that what is read of a list of paths is there.
 *
 * @throws {InputError} with every path that is not
 */
export async function checkPaths(paths: readonly RecipePath[]): Promise<void> {
  const problems: string[] = [];
  for (const { field, of, path } of paths.filter(({ of }) => of !== "folder")) {
    try {
      for (const file of of === "dataset" ? await datasetFiles(path) : [path]) await system.stat(file);
    } catch (error) {
      const missing = error instanceof system.errors.NotFound;
      const told = missing ? "there is no such file or folder" : (error as Error).message;
      // Errors of our own begin with the path.
      problems.push(`${field}: ${told.startsWith(path) ? told : `${path}: ${told}`}`);
    }
  }
  if (problems.length === 0) return;
  throw new InputError(problems.join("\n"), {
    hint: paths.some(({ of, path }) => of === "dataset" && path.includes("hf:"))
      ? "A dataset of the hub is named hf:datasets/ORG/NAME."
      : "Paths in a recipe are relative to the recipe's own folder; those given with --set to the working folder.",
  });
}
