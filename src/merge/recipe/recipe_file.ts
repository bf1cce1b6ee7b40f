/**
 * Merge recipes on disk, ours or mergekit's.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { dirname, resolve } from "@std/path";
import { readWrittenFile } from "../../formats/written_file.ts";
import { isHubName } from "../../hub/hub_name.ts";
import { isMergekit, parseMergekit } from "./mergekit.ts";
import { mapModels, type MergeRecipe, modelsOf, parseMergeRecipe } from "./recipe.ts";

/**
 * Reads and checks a recipe. Paths come out absolute: in our own recipes they are relative to the recipe's folder, in those for mergekit
 * to `cwd`, as there.
 *
 * @param change What is changed in it before it is checked, if anything
 * @throws {InputError} no such file, or it cannot be read
 * @throws {MergeRecipeError} with every problem at once
 */
export async function loadMergeRecipe(
  path: string,
  { cwd = Deno.cwd(), change = (written) => written }: {
    cwd?: string;
    change?: (written: unknown) => unknown;
  } = {},
): Promise<MergeRecipe> {
  const written = change(await readWrittenFile(path, { kind: "merge recipe" }));
  return isMergekit(written)
    ? withAbsolutePaths(parseMergekit(written, path), cwd)
    : withAbsolutePaths(parseMergeRecipe(written, path), dirname(resolve(path)));
}

/** The same merge with paths taken from a folder, each spelt in one way; models of the hub stay names. */
export function withAbsolutePaths(recipe: MergeRecipe, folder: string): MergeRecipe {
  return mapModels(recipe, (path) => isHubName(path) ? path : resolve(folder, path));
}

/**
 * The same merge with paths in place of models of the hub.
 *
 * @param local Fetches one that is named, and returns its path
 */
export async function withLocalParents(
  recipe: MergeRecipe,
  local: (name: string) => Promise<string>,
): Promise<MergeRecipe> {
  const paths = new Map<string, string>();
  for (const name of modelsOf(recipe).filter(isHubName)) paths.set(name, await local(name));
  return mapModels(recipe, (model) => paths.get(model) ?? model);
}
