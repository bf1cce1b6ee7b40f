/**
 * From a prepared recipe to what a trainer trains: losses, adapters and trained tensors, looked up and put together.
 *
 * @module
 */
import { InputError, LimbeckError } from "../../base/errors.ts";
import { PluginError } from "../../registry/contract.ts";
import type { Registry } from "../../registry/registry.ts";
import { TEACHER } from "../trained/model_adapter.ts";
import { partsOf } from "../trained/attach.ts";
import { ModelFeatureLoss } from "../objective/feature_losses.ts";
import { Objective } from "../objective/objective.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import { checkPromptLosses } from "../program/prompt_features.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { checkRecipePlugins } from "../recipe/plugins.ts";
import { Trainables } from "../trained/trainables.ts";
import { openAdapter, trainedStudent } from "../trained/trained_student.ts";
import type { TrainingSetup } from "../program/plan_training.ts";

/** Resolves a prepared recipe's losses and what it trains. */
export function setUp(
  prepared: Pick<PreparedRun, "recipe" | "teacher" | "student">,
  registry: Registry,
): TrainingSetup {
  const { recipe, teacher, student } = prepared;
  checkRecipePlugins(recipe, registry);
  const objective = resolveObjective(recipe, registry, student.config.vocabularySize);
  const trained = trainedStudent(recipe, student, registry);
  if (!trained.adapter && !recipe.output.merged) {
    throw new InputError(
      "the run would leave nothing: without an adapter, only the merged model holds what was trained",
      {
        where: "recipe output.merged",
        hint: "set output.merged: true",
      },
    );
  }
  const teacherRecipe = recipe.teacher.adapter ?? recipe.adapter;
  const teacherAdapter = recipe.teacher.train && teacherRecipe !== "none"
    ? openAdapter(teacherRecipe, teacher, registry, recipe.train.steps, TEACHER)
    : undefined;
  checkPromptLosses(recipe, trained.adapter, teacherAdapter);
  const features = objective.features.map((term) => new ModelFeatureLoss(term, { student, teacher }));
  return {
    ...{ recipe, teacher, student, objective, features },
    ...trained,
    ...(teacherAdapter ? { teacherAdapter } : {}),
    trainables: new Trainables([
      ...partsOf(trained),
      ...(teacherAdapter ? [teacherAdapter] : []),
      ...features,
    ]),
  };
}

/** What a loss throws while its kernel is made is told as a plugin's. */
function resolveObjective({ objective, teacher }: Recipe, registry: Registry, vocabulary: number): Objective {
  try {
    return Objective.of(registry, objective, vocabulary, teacher.cache);
  } catch (error) {
    if (error instanceof LimbeckError) throw error;
    const ids = [...new Set(objective.map((term) => term.loss))];
    const own = ids.filter((id) => id.includes("/"));
    throw new PluginError(
      (own.length > 0 ? own : ids).join(", "),
      `throws while its kernel is made: ${(error as Error).message}`,
      { hint: "`limbeck plugin check` looks at a plugin alone.", cause: error },
    );
  }
}
