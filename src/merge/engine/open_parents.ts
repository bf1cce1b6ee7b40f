/**
 * Opening the models of a recipe. Where some cannot be opened, what else is wrong with the recipe is told along with them, so that nobody
 * waits for a download to hear of a misspelt option.
 *
 * @module
 */
import type { ModelFamily } from "../../models/family.ts";
import type { Merge } from "../../registry/contract.ts";
import { Parents, unopened } from "../parents/parents.ts";
import { type MergeRecipe, MergeRecipeError, modelsOf } from "../recipe/recipe.ts";
import { MergeOptions } from "./options.ts";

/**
 * @param where How errors name the recipe
 * @param families Beside the built-in ones
 * @throws {MergeRecipeError} where a model cannot be opened and options are wrong, with every one of both
 * @throws {InputError} where models cannot be opened and no option is seen to be wrong
 */
export async function openParents(
  recipe: MergeRecipe,
  method: Merge,
  where: string,
  families: readonly ModelFamily[] = [],
): Promise<Parents> {
  const parents = await Parents.tryOpen(modelsOf(recipe), families);
  if (parents instanceof Parents) return parents;
  const options = new MergeOptions(method, recipe);
  options.checkValues();
  if (options.problems.length === 0) throw unopened(parents);
  const problems = [...parents].map(([model, { message }]) => ({ path: placeOf(recipe, model), message }));
  throw new MergeRecipeError(where, [...problems, ...options.problems]);
}

/** Where a recipe names a model. */
function placeOf({ slices, base, writtenFor, vocabulary }: MergeRecipe, model: string): string {
  const baseField = writtenFor === "mergekit" ? "base_model" : "base";
  const source = slices.flatMap(({ sources }) => sources).find((source) => source.model === model);
  if (source && source.where !== baseField) return `${source.where}.model`;
  if (model === base) return baseField;
  return vocabulary?.of === "model" && writtenFor === "mergekit" ? "tokenizer_source" : "tokenizer";
}
