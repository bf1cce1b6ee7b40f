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
import { Objective, type ObjectiveSetting } from "../objective/objective.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import { checkPromptLosses } from "../program/fed/prompt_features.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { checkRecipePlugins } from "../recipe/plugins.ts";
import { Trainables } from "../trained/trainables.ts";
import { openAdapter, trainedStudent } from "../trained/trained_student.ts";
import type { Model } from "../inputs/models.ts";
import { checkServedObjective } from "../teacher/served.ts";
import type { OneForAll } from "../program/block_models.ts";
import type { TrainingSetup } from "../program/plan_training.ts";
import { sandwichSize } from "../program/shapes/sandwich.ts";
import { WidthInputs } from "../program/shapes/width_inputs.ts";
import { cacheField, cacheOf, keepsPart, movingSelf, teachersOf } from "../recipe/teachers.ts";

/** Resolves a prepared recipe's losses and what it trains. */
export function setUp(
  prepared:
    & Pick<PreparedRun, "recipe" | "teacher" | "student" | "aligned" | "privileged">
    & Partial<Pick<PreparedRun, "teachers">>,
  registry: Registry,
): TrainingSetup {
  const { recipe, teacher, student, aligned, privileged, teachers = [teacher] } = prepared;
  checkRecipePlugins(recipe, registry);
  const objective = resolveTerms(
    registry,
    recipe.objective,
    student.config.vocabularySize,
    {
      ...decidingCache(recipe.teacher),
      onPolicy: recipe.train.onPolicy,
      aligned: aligned && { teacherVocabulary: teacher.config.vocabularySize, matched: aligned.matched },
      oneTemperature: recipe.teacher.combine === "mixture",
    },
  );
  checkServedObjective(recipe, objective);
  checkOneTeacher(recipe, objective);
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
  if (recipe.teacher.privileged && movingSelf(recipe.teacher) && trained.adapter?.plugin.readsPrompt) {
    throw new InputError(
      `the adapter "${trained.adapter.plugin.id}" chooses its experts by the prompt, and the teacher that follows it is told another`,
      {
        where: "recipe teacher.privileged",
        hint: "leave it out, or teacher.self, so that the student without its adapter teaches",
      },
    );
  }
  const features = objective.features.map((term) => new ModelFeatureLoss(term, { student, teacher }));
  return {
    ...{ recipe, teacher, teachers, student, objective, features },
    ...trained,
    ...(teacherAdapter ? { teacherAdapter } : {}),
    ...(aligned ? { aligned } : {}),
    ...(privileged ? { privileged } : {}),
    ...(student.shapes ? { oneForAll: resolveOneForAll(recipe, objective, student, registry) } : {}),
    trainables: new Trainables(
      [...partsOf(trained), ...(teacherAdapter ? [teacherAdapter] : []), ...features],
      movingSelf(recipe.teacher) ? partsOf(trained) : [],
    ),
  };
}

/** What decides which losses can be had where several teachers are kept: a part of the distribution serves fewer than all of it. */
function decidingCache(teacher: Recipe["teacher"]): Pick<ObjectiveSetting, "cache" | "cacheField"> {
  const caches = teachersOf(teacher).map((_, i) => cacheOf(teacher, i));
  const parts = caches.findIndex(keepsPart);
  const i = parts < 0 ? caches.findIndex((cache) => cache !== undefined) : parts;
  return i < 0 ? {} : { cache: caches[i], cacheField: cacheField(teacher, i) };
}

/** @throws {InputError} on a loss over inner values, where there are several teachers, or one whose positions are not the student's */
function checkOneTeacher({ teacher }: Recipe, { terms, features }: Objective): void {
  const [first] = features;
  if (!(teacher.teachers || teacher.privileged) || !first) return;
  const why = teacher.teachers
    ? "there are several"
    : "that is told more than the student, at other positions";
  const instead = teacher.teachers ? "one teacher" : "leave out teacher.privileged";
  throw new InputError(`"${first.loss.id}" looks at inner values of the teacher, and ${why}`, {
    where: `recipe objective.${terms.indexOf(first)}.loss`,
    hint: `take losses over logits, such as forward-kl, or ${instead}`,
  });
}

/** How the shapes of a student are trained. @throws {InputError} on a loss or an adapter that does not do */
function resolveOneForAll(
  { train: { oneForAll }, adapter }: Recipe,
  ofWhole: Objective,
  student: Model,
  registry: Registry,
): OneForAll {
  const space = student.shapes!;
  if (ofWhole.features.length > 0) {
    throw new InputError("the whole model of a student of several shapes learns by a loss over logits", {
      where: "recipe objective.0.loss",
      hint: "take one that is, such as soft-cross-entropy or cross-entropy",
    });
  }
  const { random, target, loss, lossWeight, balance } = oneForAll!;
  const { head } = student.architecture.family.names;
  if (adapter !== "none" && adapter.targets !== "all-linear" && adapter.targets.includes(head)) {
    throw new InputError("the head of a student of several shapes can have no adapter", {
      where: "recipe adapter.targets",
      hint: `leave ${head} out of the targets`,
    });
  }
  const term = (loss: string, weight: number) => ({ loss, weight, temperature: 1, options: {} });
  const objective = resolveTerms(registry, [
    term(loss, lossWeight),
    ...(lossWeight < 1 ? [term("cross-entropy", 1 - lossWeight)] : []),
  ], student.config.vocabularySize);
  if (objective.features.length > 0 || objective.passes.length !== 1 || !objective.passes[0]!.needsTarget) {
    throw new InputError(`"${loss}" does not compare the logits of a shape with those of another model`, {
      where: "recipe train.oneForAll.loss",
      hint: "take one that does, such as soft-cross-entropy or forward-kl",
    });
  }
  return {
    ...{ space, objective, balance, shapes: sandwichSize(space, random) },
    target: target === "teacher" ? "teacher" : "student",
    ...(space.widths.length > 1 ? { widths: new WidthInputs(student) } : {}),
  };
}

/** What a loss throws while its kernel is made is told as a plugin's. */
function resolveTerms(
  registry: Registry,
  objective: Recipe["objective"],
  vocabulary: number,
  setting: ObjectiveSetting = {},
): Objective {
  try {
    return Objective.of(registry, objective, vocabulary, setting);
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
