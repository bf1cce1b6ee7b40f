/**
 * A recipe with all that it names, for looking at it without running it.
 *
 * @module
 */
import { familiesOf } from "../../registry/families.ts";
import type { Registry } from "../../registry/registry.ts";
import { type DataWarning, dataWarnings } from "../inputs/data_warnings.ts";
import { type PreparedRun, prepareRun } from "../inputs/prepare.ts";
import type { DataAccess } from "../inputs/sample_sets.ts";
import { checkPairs } from "../objective/pairs.ts";
import { checkPrompts } from "../program/fed/prompt_features.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { checkRecipePlugins } from "../recipe/plugins.ts";
import { openTasks } from "./task_evaluation.ts";
import { setUp } from "./set_up.ts";
import type { TrainingSetup } from "../program/plan_training.ts";

/** A recipe with its models and data open, its losses and adapter resolved. */
export interface OpenedRecipe {
  readonly recipe: Recipe;
  readonly prepared: PreparedRun;
  readonly setup: TrainingSetup;
  readonly warnings: readonly DataWarning[];
}

/**
 * Opens all that a recipe names, hands it to `use` and closes it again.
 *
 * @param access How the data are read
 * @throws {InputError} whatever is wrong with the recipe, its models, data or plugins
 */
export async function openRecipe<T>(
  recipe: Recipe,
  registry: Registry,
  use: (opened: OpenedRecipe) => T | Promise<T>,
  access: DataAccess = {},
): Promise<T> {
  checkRecipePlugins(recipe, registry);
  const prepared = await prepareRun(recipe, undefined, familiesOf(registry), access);
  try {
    const setup = setUp(prepared, registry);
    await openTasks(recipe.evaluate?.tasks ?? []);
    checkPrompts([...prepared.train, ...prepared.heldOut], setup.adapter, setup.teacherAdapter);
    checkPairs({ terms: setup.objective.terms, recipe: prepared.recipe }, prepared);
    return await use({ recipe, prepared, setup, warnings: dataWarnings(prepared) });
  } finally {
    prepared.close();
  }
}
