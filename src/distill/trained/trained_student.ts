/**
 * What a recipe trains of the student: an adapter, tensors of its own, or both.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { Registry } from "../../registry/registry.ts";
import { type AdapterPlace, ModelAdapter } from "./model_adapter.ts";
import type { Trained } from "./attach.ts";
import type { Model } from "../inputs/models.ts";
import type { AdapterRecipe, Recipe } from "../recipe/recipe.ts";
import { TrainedTensors } from "./trained_tensors.ts";

/**
 * Resolves the adapter and the tensors that a recipe trains.
 *
 * @throws {InputError} if either means nothing in this model, or a layer would be trained in both ways
 */
export function trainedStudent(recipe: Recipe, student: Model, registry: Registry): Trained {
  const adapter = recipe.adapter === "none"
    ? undefined
    : openAdapter(recipe.adapter, student, registry, recipe.train.steps);
  const names = recipe.student.train ?? [];
  const tensors = names.length > 0 ? new TrainedTensors(student, names) : undefined;
  const both = tensors && adapter?.layers.find(({ path }) => tensors.has(`${path}.weight`));
  if (both) {
    throw new InputError(`${both.path}.weight is trained itself, and the layer has an adapter too`, {
      where: "recipe student.train",
      hint: "name other tensors here, other layers in adapter.targets, or set adapter: none",
    });
  }
  return { ...(adapter ? { adapter } : {}), ...(tensors ? { tensors } : {}) };
}

/**
 * An adapter as a recipe describes it.
 *
 * @param steps Optimiser steps of the run
 */
export function openAdapter(
  recipe: AdapterRecipe,
  model: Model,
  registry: Registry,
  steps: number,
  place?: AdapterPlace,
): ModelAdapter {
  const plugin = registry.get("adapter", recipe.type);
  const options = registry.options(plugin, recipe.options, `${place?.where ?? "adapter"}.options`);
  return new ModelAdapter(plugin, recipe, options, model, steps, place);
}

/** All values of what is trained by name: the trained ones as given, the fixed ones made again. */
export async function valuesOf(
  { adapter, tensors }: Trained,
  trained: ReadonlyMap<string, Float32Array>,
  seed: number,
): Promise<Map<string, Float32Array>> {
  const values = adapter ? await adapter.namedValues(trained, seed) : new Map<string, Float32Array>();
  for (const { name } of tensors?.trained ?? []) values.set(name, trained.get(name)!);
  return values;
}
