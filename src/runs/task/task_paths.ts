/**
 * The files and folders that a task names: the one list of the fields that hold paths.
 *
 * @module
 */
import { isObject } from "../../base/json.ts";
import { mapRecipePaths, type RecipePath } from "../../distill/recipe/paths.ts";

/** Fields by task; `*` stands for every place in a list. */
const FIELDS: Readonly<Record<string, readonly (readonly [field: string, of: RecipePath["of"]])[]>> = {
  merge: [
    ["base", "model"],
    ["base_model", "model"],
    ["models.*.model", "model"],
    ["slices.*.sources.*.model", "model"],
    ["tokenizer", "model"],
    ["tokenizer.source", "model"],
    ["tokenizer_source", "model"],
  ],
  residual: [["base", "model"], ["instruct", "model"], ["newBase", "model"]],
  evaluate: [
    ["models.*.model", "model"],
    ["teacher", "model"],
    ["tasks.*.data", "dataset"],
    ["tasks.*.data.*", "dataset"],
  ],
  extract: [["base", "model"], ["tuned", "model"]],
  export: [["run", "run"]],
  "merge-adapters": [["adapters.*.adapter", "adapter"], ["into", "model"]],
  shrink: [["model", "model"], ["data", "dataset"], ["data.*", "dataset"]],
};

/** Words that stand in place of a model where a merge says whose tokens its result has. */
const NO_MODELS: ReadonlySet<string> = new Set(["base", "union"]);

/** The paths of a task, checked or not, as far as they are there. */
export function taskPaths(task: unknown): RecipePath[] {
  const found: RecipePath[] = [];
  visit(task, (path) => {
    found.push(path);
    return path.path;
  });
  return found;
}

/** A copy of a task, checked or not, with other paths. */
export function mapTaskPaths<T>(task: T, map: (path: RecipePath) => string): T {
  return visit(task, map) as T;
}

function visit(task: unknown, map: (path: RecipePath) => string): unknown {
  const name = isObject(task) ? String(task.task) : "";
  if (name === "cache") {
    const { recipe } = task as { readonly recipe?: unknown };
    return {
      ...task as object,
      recipe: mapRecipePaths(recipe, (path) => map({ ...path, field: `recipe.${path.field}` })),
    };
  }
  const fields = Object.hasOwn(FIELDS, name) ? FIELDS[name]! : [];
  return fields.reduce(
    (copy: unknown, [field, of]) =>
      mapField(copy, field.split("."), [], (path, at) => {
        const isWord = name === "merge" && /^tokenizer/.test(field) && NO_MODELS.has(path);
        return isWord ? path : map({ field: at, of, path });
      }),
    task,
  );
}

function mapField(
  value: unknown,
  [key, ...rest]: readonly string[],
  at: readonly string[],
  map: (path: string, at: string) => string,
): unknown {
  if (key === undefined) return typeof value === "string" && value !== "" ? map(value, at.join(".")) : value;
  if (key === "*") {
    if (!Array.isArray(value)) return value;
    return value.map((entry, i) => mapField(entry, rest, [...at, String(i)], map));
  }
  if (!isObject(value) || !Object.hasOwn(value, key)) return value;
  return { ...value, [key]: mapField(value[key], rest, [...at, key], map) };
}
