/**
 * Recipes as a request sends them: names stand where the command line has paths. What is no name is refused.
 *
 * @module
 */
import { type Recipe } from "../distill/recipe/recipe.ts";
import { parseRecipe, RecipeError } from "../distill/recipe/parse.ts";
import { mapRecipePaths, recipePaths } from "../distill/recipe/paths.ts";
import type { RecipeProblem } from "../distill/recipe/problems.ts";
import { checkRecipePlugins } from "../distill/recipe/plugins.ts";
import { didYouMean } from "../base/did_you_mean.ts";
import type { Registry } from "../registry/registry.ts";
import { beyondCaps, type Caps } from "./caps.ts";
import type { Catalogue } from "./catalogue.ts";

/** Values that a recipe may have at most, counted as often as they are reached. */
const MOST_VALUES = 10_000;
const DEEPEST = 32;

/**
 * Reads a recipe with names and resolves them.
 *
 * @throws {RecipeError} with every problem that can be seen without opening a model
 */
export async function resolveNamed(
  value: unknown,
  { catalogue, registry, caps }: { catalogue: Catalogue; registry: Registry; caps: Caps },
): Promise<Recipe> {
  checkSize(value);
  const recipe = parseRecipe(value);
  const problems: RecipeProblem[] = beyondCaps(recipe, caps);
  const model = async (path: string, name: string): Promise<string> => {
    const found = await catalogue.model(name);
    if (found !== undefined) return found;
    const names = (await catalogue.models()).map((model) => model.name);
    problems.push({
      path,
      message: `this service has no model "${name}"; ${has(names)}${didYouMean(name, names)}`,
    });
    return "";
  };
  const dataset = async (path: string, name: string): Promise<string> => {
    const found = await catalogue.dataset(name);
    if (found !== undefined) return found;
    const names = (await catalogue.datasets()).map((data) => data.name);
    problems.push({
      path,
      message: `this service has no dataset "${name}"; ${has(names)}; POST /v1/files uploads one${
        didYouMean(name, names)
      }`,
    });
    return "";
  };
  const found = new Map<string, string>();
  for (const { field, of, path } of recipePaths(recipe)) {
    if (of === "folder") problems.push({ path: field, message: "is chosen by the service; leave it out" });
    else if (of === "shape") {
      problems.push({
        path: field,
        message: "cannot be given to a service; name the layers in student.layers",
      });
    } else found.set(field, await (of === "model" ? model : dataset)(field, path));
  }
  const resolved = mapRecipePaths(recipe, ({ field, path }) => found.get(field) ?? path);
  if (caps.gpuBytes !== undefined) {
    resolved.limits = {
      ...recipe.limits,
      gpuBytes: Math.min(recipe.limits.gpuBytes ?? Infinity, caps.gpuBytes),
    };
  }
  try {
    checkRecipePlugins(resolved, registry);
  } catch (error) {
    if (!(error instanceof RecipeError)) throw error;
    problems.push(...error.problems);
  }
  if (problems.length > 0) throw new RecipeError("recipe", problems);
  return resolved;
}

function has(names: readonly string[]): string {
  if (names.length === 0) return "it has none";
  return `it has ${names.slice(0, 20).join(", ")}${names.length > 20 ? " and more" : ""}`;
}

function checkSize(value: unknown): void {
  let count = 0;
  const visit = (node: unknown, depth: number): void => {
    if (++count > MOST_VALUES || depth > DEEPEST) {
      throw new RecipeError("recipe", [{
        path: "",
        message: `holds more than ${MOST_VALUES} values or nests deeper than ${DEEPEST}`,
      }]);
    }
    if (typeof node === "object" && node !== null) {
      for (const child of Object.values(node)) visit(child, depth + 1);
    }
  };
  visit(value, 0);
}
