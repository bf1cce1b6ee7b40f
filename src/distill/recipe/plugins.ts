/**
 * Checks the losses and adapters that a recipe names, before anything is loaded for them.
 *
 * @module
 */
import { LimbeckError } from "../../base/errors.ts";
import type { Plugin } from "../../registry/contract.ts";
import type { Role } from "../../registry/kinds/mod.ts";
import type { Registry } from "../../registry/registry.ts";
import { didYouMean } from "../../base/did_you_mean.ts";
import { type AdapterRecipe, type Recipe } from "./recipe.ts";
import { RecipeError } from "./parse.ts";
import type { RecipeProblem } from "./problems.ts";

/**
 * Checks that every loss and adapter is there, takes the options it is given and can do what the recipe wants of it.
 *
 * @throws {RecipeError} with every problem at once
 */
export function checkRecipePlugins(recipe: Recipe, registry: Registry): void {
  const problems = [
    ...recipe.objective.flatMap(({ loss, options }, i) =>
      problemsOf("loss", loss, options, `objective.${i}.loss`, `objective.${i}.options`, registry)
    ),
    ...(recipe.adapter === "none" ? [] : adapterProblems(recipe.adapter, "adapter", registry)),
    ...(recipe.teacher.adapter ? adapterProblems(recipe.teacher.adapter, "teacher.adapter", registry) : []),
    ...mergingProblems(recipe, registry),
  ];
  if (problems.length > 0) throw new RecipeError("recipe", problems);
}

/** Why an adapter without `merge` has none. */
export function cannotMerge(id: string): string {
  return `the adapter "${id}" cannot be merged into the weights: what it adds depends on the input`;
}

function mergingProblems({ adapter, output }: Recipe, registry: Registry): RecipeProblem[] {
  if (adapter === "none" || !output.merged) return [];
  const plugin = registry.list().find((p) => p.kind === "adapter" && p.id === adapter.type);
  if (plugin?.kind !== "adapter" || plugin.merge) return [];
  return [{ path: "output.merged", message: `is true, but ${cannotMerge(plugin.id)}; set it to false` }];
}

function adapterProblems(
  { type, options }: AdapterRecipe,
  path: string,
  registry: Registry,
): RecipeProblem[] {
  return problemsOf("adapter", type, options, `${path}.type`, `${path}.options`, registry);
}

function problemsOf(
  role: Role,
  id: string,
  options: Readonly<Record<string, unknown>>,
  idPath: string,
  optionsPath: string,
  registry: Registry,
): RecipeProblem[] {
  let plugin: Plugin;
  try {
    plugin = registry.get(role, id);
  } catch (error) {
    if (!(error instanceof LimbeckError)) throw error;
    const hint = error.hint ? `. ${error.hint[0]!.toUpperCase()}${error.hint.slice(1)}` : "";
    return [{ path: idPath, message: `${error.message}${hint}` }];
  }
  const result = plugin.options.safeParse(options);
  if (result.success) return [];
  const known = Object.keys(plugin.options.shape);
  return result.error.issues.flatMap((issue): RecipeProblem[] => {
    const path = [optionsPath, ...issue.path.map(String)];
    if (issue.code !== "unrecognized_keys") return [{ path: path.join("."), message: issue.message }];
    return issue.keys.map((key) => ({
      path: [...path, key].join("."),
      message: `"${id}" has no such option${didYouMean(key, known)}${
        known.length > 0 ? ` (it has ${known.join(", ")})` : " (it has none)"
      }`,
    }));
  });
}
