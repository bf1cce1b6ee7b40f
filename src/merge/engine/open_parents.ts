/**
 * Opening the models of a recipe. Where some cannot be opened, what else is wrong with the recipe is told along with them, so that nobody
 * waits for a download to hear of a misspelt option.
 *
 * @module
 */
import type { SchemaProblem } from "../../base/schema_problems.ts";
import type { Merge } from "../../registry/contract.ts";
import { Parents, UnopenedModelsError } from "../parents/parents.ts";
import { type MergeRecipe, MergeRecipeError, modelsOf } from "../recipe/recipe.ts";
import { MergeOptions } from "./options.ts";

/**
 * @param where How errors name the recipe
 * @throws {MergeRecipeError} where a model cannot be opened and options are wrong, with every one of both
 * @throws {UnopenedModelsError} where models cannot be opened and no option is seen to be wrong
 */
export async function openParents(recipe: MergeRecipe, method: Merge, where: string): Promise<Parents> {
  try {
    return await Parents.open(modelsOf(recipe));
  } catch (error) {
    if (!(error instanceof UnopenedModelsError)) throw error;
    const options = new MergeOptions(method, recipe);
    options.checkValues();
    if (options.problems.length === 0) throw error;
    const problems = [...error.failures].map(([model, { message }]): SchemaProblem => ({
      path: placeOf(recipe, model),
      message,
    }));
    throw new MergeRecipeError(where, [...problems, ...options.problems]);
  }
}

function placeOf({ slices, base, writtenFor, vocabulary }: MergeRecipe, model: string): string {
  const baseField = writtenFor === "mergekit" ? "base_model" : "base";
  const source = slices.flatMap(({ sources }) => sources).find((source) => source.model === model);
  if (source && source.where !== baseField) return `${source.where}.model`;
  if (model === base) return baseField;
  return vocabulary?.of === "model" && writtenFor === "mergekit" ? "tokenizer_source" : "tokenizer";
}
