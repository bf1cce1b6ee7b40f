/**
 * Recipes as a request sends them: names stand where the command line has paths. What is no name is refused.
 *
 * @module
 */
import { type Recipe } from "../distill/recipe/recipe.ts";
import { RecipeError } from "../distill/recipe/parse.ts";
import type { RecipeProblem } from "../distill/recipe/problems.ts";
import { checkRecipePlugins } from "../distill/recipe/plugins.ts";
import { didYouMean } from "../base/did_you_mean.ts";
import type { Registry } from "../registry/registry.ts";
import {
  isTask,
  mapRunRecipePaths,
  parseRunRecipe,
  type RunRecipe,
  runRecipePaths,
} from "../runs/task/run_recipe.ts";
import { mergeRecipeOf, type Task } from "../runs/task/task.ts";
import { type FetchOptions, locateModel } from "../hub/fetch_model.ts";
import { isHubDataset, isHubName, parseHubName } from "../hub/hub_name.ts";
import { HubError, type Patience } from "../hub/hub_requests.ts";
import { InputError } from "../base/errors.ts";
import { HttpError } from "./http/http_error.ts";
import { beyondCaps, beyondTaskCaps, type Caps } from "./caps.ts";
import type { Catalogue } from "./catalogue.ts";

/** Values that a recipe may have at most, counted as often as they are reached. */
const MOST_VALUES = 10_000;
const DEEPEST = 32;

/** Whoever waits for an answer waits less long for the hub than a run does. */
const REQUEST_PATIENCE: Patience = { tries: 2, pause: 500, longestPause: 2000, silence: 10_000 };

/**
 * Reads a recipe or a task with names and resolves them. Models of the hub become the places in the cache that they will have: they are
 * fetched when the run begins.
 *
 * @throws {RecipeError} with every problem that can be seen without opening a model
 * @throws {HttpError} 503 the hub cannot be asked
 */
export async function resolveNamed(
  value: unknown,
  { catalogue, registry, caps, hub }: {
    catalogue: Catalogue;
    registry: Registry;
    caps: Caps;
    hub?: FetchOptions | undefined;
  },
): Promise<RunRecipe> {
  checkSize(value);
  const recipe = parseRunRecipe(value);
  const problems: RecipeProblem[] = isTask(recipe)
    ? [...beyondTaskCaps(recipe, caps), ...taskProblems(recipe, registry)]
    : beyondCaps(recipe, caps);
  const model = async (path: string, name: string): Promise<string> => {
    const found = await catalogue.model(name);
    if (found !== undefined) return found;
    const names = (await catalogue.models()).map((model) => model.name);
    if (isHubName(name)) return hub ? await located(path, name) : refused(path, name, names);
    problems.push({
      path,
      message: `this service has no model "${name}"; ${has(names)}${didYouMean(name, names)}`,
    });
    return "";
  };
  const refused = (path: string, name: string, names: readonly string[]): string => {
    problems.push({
      path,
      message:
        `"${name}" is on the hub, and this service fetches nothing from there: whoever runs it may allow it with ` +
        `\`limbeck serve --hub\`, or put ${
          isHubDataset(name) ? "the file into a folder of --datasets" : "the model into a folder of --models"
        }; ${has(names)}`,
    });
    return "";
  };
  const located = async (path: string, name: string): Promise<string> => {
    try {
      return await locateModel(parseHubName(name), { ...hub, patience: hub?.patience ?? REQUEST_PATIENCE });
    } catch (error) {
      if (error instanceof HubError) {
        throw new HttpError(503, error.message, { code: error.code, param: path, cause: error });
      }
      if (!(error instanceof InputError)) throw error;
      problems.push({ path, message: [error.message, error.hint].filter(Boolean).join(". ") });
      return "";
    }
  };
  const dataset = async (path: string, name: string): Promise<string> => {
    const found = await catalogue.dataset(name);
    if (found !== undefined) return found;
    const names = (await catalogue.datasets()).map((data) => data.name);
    if (isHubDataset(name)) return hub ? await located(path, name) : refused(path, name, names);
    problems.push({
      path,
      message: `this service has no dataset "${name}"; ${has(names)}; POST /v1/files uploads one${
        didYouMean(name, names)
      }`,
    });
    return "";
  };
  const shape = async (path: string, name: string): Promise<string> => {
    const found = await catalogue.shape(name);
    if (found === undefined) {
      problems.push({
        path,
        message:
          "must be run:ID of a run that shrank a model, or the id of a shape file that POST /v1/files was given",
      });
    }
    return found ?? "";
  };
  const run = async (path: string, name: string): Promise<string> => {
    const folder = await catalogue.run(name);
    if (folder === undefined) {
      problems.push({ path, message: "must be run:ID of a run that trains several shapes of its student" });
    }
    return folder ?? "";
  };
  const adapter = async (path: string, name: string): Promise<string> => {
    const found = await catalogue.adapter(name);
    if (found === undefined) problems.push({ path, message: "must be run:ID of a run that left an adapter" });
    return found ?? "";
  };
  const resolvers = { model, dataset, shape, run, adapter };
  const found = new Map<string, string>();
  for (const { field, of, path } of runRecipePaths(recipe)) {
    if (of === "folder") problems.push({ path: field, message: "is chosen by the service; leave it out" });
    else found.set(field, await resolvers[of](field, path));
  }
  const resolved = mapRunRecipePaths(recipe, ({ field, path }) => found.get(field) ?? path);
  if (!isTask(resolved)) problems.push(...boundDistillation(resolved, caps, registry));
  else if (resolved.task === "cache") {
    const { recipe } = resolved;
    problems.push(
      ...boundDistillation(recipe, caps, registry).map(({ path, ...rest }) => ({
        path: `recipe.${path}`,
        ...rest,
      })),
    );
  }
  if (problems.length > 0) throw new RecipeError("recipe", problems);
  return resolved;
}

/** Puts the service's bound on the GPU into a recipe; returns what is wrong with the plugins that it names. */
function boundDistillation(resolved: Recipe, caps: Caps, registry: Registry): readonly RecipeProblem[] {
  if (caps.gpuBytes !== undefined) {
    resolved.limits = {
      ...resolved.limits,
      gpuBytes: Math.min(resolved.limits.gpuBytes ?? Infinity, caps.gpuBytes),
    };
  }
  try {
    checkRecipePlugins(resolved, registry);
    return [];
  } catch (error) {
    if (!(error instanceof RecipeError)) throw error;
    return error.problems;
  }
}

/** What of a task can be refused before a model is opened: methods that are not there, and templates, which are programs. */
function taskProblems(task: Task, registry: Registry): RecipeProblem[] {
  if (task.task !== "merge") return [];
  const problems: RecipeProblem[] = [];
  const recipe = mergeRecipeOf(task);
  if (!registry.find("merge", recipe.method)) {
    const ids = registry.list().flatMap((plugin) => plugin.kind === "merge" ? [plugin.id] : []);
    const field = Object.hasOwn(task, "merge_method") ? "merge_method" : "method";
    problems.push({
      path: field,
      message: `there is no merge method "${recipe.method}"${didYouMean(recipe.method, ids)}`,
    });
  }
  for (const field of ["chatTemplate", "chat_template"]) {
    if (Object.hasOwn(task, field)) {
      problems.push({
        path: field,
        message: "is a program, which a request may not bring along; leave it out",
      });
    }
  }
  return problems;
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
