/**
 * Chains: several runs one after another, each of which may use what earlier ones left.
 *
 * ```yaml
 * steps:
 *   - {name: cut, task: shrink, model: ./teacher, data: heldout.jsonl, layers: 4}
 *   - {name: mended, task: distill, recipe: mend.yaml}       # whose student.model is step:cut
 *   - {name: both, task: merge, method: linear, models: [{model: "step:mended"}, {model: ./other}]}
 * ```
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { dirname, resolve } from "@std/path";
import { didYouMean } from "../../base/did_you_mean.ts";
import { InputError } from "../../base/errors.ts";
import { isObject } from "../../base/json.ts";
import { readWrittenRecipe } from "../../distill/recipe/file.ts";
import { RecipeError } from "../../distill/recipe/parse.ts";
import { absolutePath, type RecipePath } from "../../distill/recipe/paths.ts";
import { readWrittenFile } from "../../formats/written_file.ts";
import { isMergekit } from "../../merge/recipe/mergekit.ts";
import {
  isTask,
  mapRunRecipePaths,
  parseRunRecipe,
  RUN_TASKS,
  type RunRecipe,
  runRecipePaths,
} from "../task/run_recipe.ts";
import { outputsOf, TASK_OUTPUTS } from "../task/task.ts";

/** A step as it was read: nothing that it names was opened. */
export interface ChainStep {
  readonly name: string;
  /** What it does. Its paths are absolute, or name earlier steps: `step:NAME`. */
  readonly recipe: RunRecipe;
}

/** What is wrong with a chain, all at once. */
export class ChainError extends InputError {
  override readonly code = "bad_chain";
  readonly problems: readonly ChainProblem[];

  constructor(where: string, problems: readonly ChainProblem[]) {
    const count = problems.length === 1 ? "1 problem" : `${problems.length} problems`;
    const lines = problems.map(({ path, message }) => `\n  ${path || "(whole chain)"}: ${message}`);
    super(`${count} in the chain${lines.join("")}`, { where });
    this.problems = problems;
  }
}

/** One thing that is wrong, and where: `steps.1.models.0.model`. */
export interface ChainProblem {
  readonly path: string;
  readonly message: string;
}

/** Names become folders and stand in `step:NAME`. */
const NAME = /^[\p{L}\p{N}][\p{L}\p{N}._-]{0,63}$/u;

/** The step that a path names; undefined where it is a path. */
export function stepNamed(path: string): string | undefined {
  return path.startsWith("step:") ? path.slice("step:".length) : undefined;
}

/**
 * Reads a chain. Its paths are relative to its folder, those of a step's `recipe` file to that file's; in one for mergekit to `cwd`.
 *
 * @throws {InputError} a file that is not there or cannot be read
 * @throws {ChainError} with every problem that can be seen without opening what it names
 */
export async function loadChain(path: string, cwd: string = Deno.cwd()): Promise<ChainStep[]> {
  const written = await readWrittenFile(path, { kind: "chain" });
  const problems: ChainProblem[] = [];
  const listed = isObject(written) ? written.steps : undefined;
  if (!isObject(written) || !Array.isArray(listed) || listed.length === 0) {
    throw new ChainError(path, [{ path: "steps", message: "must be a list of steps, one or more" }]);
  }
  for (const field of Object.keys(written)) {
    if (field !== "steps") {
      problems.push({ path: field, message: "there is no such field; a chain has steps" });
    }
  }
  const steps: ChainStep[] = [];
  const names = listed.map((step) => isObject(step) ? step.name : undefined);
  for (const [i, step] of listed.entries()) {
    const at = `steps.${i}`;
    try {
      const { name, recipe } = await readStep(step, dirname(resolve(path)), cwd);
      if (names.indexOf(name) < i) {
        problems.push({ path: `${at}.name`, message: `"${name}" is the name of an earlier step too` });
      }
      problems.push(
        ...runRecipePaths(recipe).flatMap((used) =>
          wrongReference(used, steps, names).map((message) => ({ path: `${at}.${used.field}`, message }))
        ),
      );
      steps.push({ name, recipe });
    } catch (error) {
      if (!(error instanceof RecipeError)) throw error;
      problems.push(...error.problems.map(({ path, message }) => ({
        path: path ? `${at}.${path}` : at,
        message,
      })));
    }
  }
  if (problems.length > 0) throw new ChainError(path, problems);
  return steps;
}

/** @throws {RecipeError} what is wrong with it */
async function readStep(value: unknown, folder: string, cwd: string): Promise<ChainStep> {
  const refuse = (path: string, message: string): never => {
    throw new RecipeError("chain", [{ path, message }]);
  };
  if (!isObject(value)) return refuse("", "must be an object with name and task");
  const { name, task, recipe: file, ...fields } = value;
  if (typeof name !== "string" || !NAME.test(name)) {
    return refuse("name", "must be up to 64 letters, digits, dots, dashes and underscores");
  }
  if (!RUN_TASKS.includes(task as never)) {
    return refuse("task", `must be one of ${RUN_TASKS.join(", ")}${didYouMean(String(task), RUN_TASKS)}`);
  }
  let written: Record<string, unknown> = fields;
  let from = folder;
  if (file !== undefined) {
    const [other] = Object.keys(fields);
    if (other !== undefined) {
      return refuse(other, "cannot stand beside recipe: the file says all of the step");
    }
    if (typeof file !== "string" || file === "") return refuse("recipe", "must be the path of a recipe file");
    const path = resolve(folder, file);
    const read = await readWrittenRecipe(path);
    if (!isObject(read)) return refuse("recipe", "holds no recipe");
    written = read;
    from = isMergekit(read) ? cwd : dirname(path);
  }
  const whole = task === "distill" ? written : { ...written, task };
  const absolute = mapRunRecipePaths(
    whole,
    (found) => stepNamed(found.path) === undefined ? absolutePath(found, from) : found.path,
  );
  const recipe = parseRunRecipe(absolute);
  if (!isTask(recipe) && recipe.output.folder !== undefined) {
    return refuse("output.folder", "is chosen by the chain; leave it out");
  }
  return { name, recipe };
}

/** Why a path cannot stand where it does, if it names a step. */
function wrongReference(
  { of, path }: RecipePath,
  earlier: readonly ChainStep[],
  names: readonly unknown[],
): string[] {
  const name = stepNamed(path);
  if (name === undefined) return [];
  const step = earlier.find((step) => step.name === name);
  if (!step) {
    if (names.includes(name)) return [`step "${name}" does not come before this one`];
    return [`there is no step "${name}"${didYouMean(name, earlier.map((step) => step.name))}`];
  }
  if (of === "model" || of === "shape") {
    return leavesOf(step.recipe).includes(of) ? [] : [`step "${name}" leaves no ${of}`];
  }
  return ["a step leaves no such thing; name a path"];
}

/** What a step leaves that later ones can use. */
function leavesOf(recipe: RunRecipe): readonly string[] {
  if (isTask(recipe)) return outputsOf(recipe);
  return recipe.output.merged ? ["model"] : [];
}

/** Where in its run's folder a step leaves something. */
export function leftAt(of: "model" | "shape"): string {
  // Runs that distil and tasks leave models under one name.
  return TASK_OUTPUTS[of];
}
