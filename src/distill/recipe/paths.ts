/**
 * The files and folders that a recipe names: the one list of the fields that hold paths.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { isAbsolute, resolve } from "@std/path";
import { isObject } from "../../base/json.ts";
import { isHubDataset, isHubName } from "../../hub/hub_name.ts";

/** A path in a recipe. */
export interface RecipePath {
  /** Where it stands, such as `data.train` or `data.train.0.path`. */
  readonly field: string;
  /** What it is of. Models, shapes, datasets and what other runs left are read; folders are written to. */
  readonly of: "model" | "shape" | "dataset" | "adapter" | "run" | "folder";
  readonly path: string;
}

const FIELDS: readonly Omit<RecipePath, "path">[] = [
  { field: "teacher.model", of: "model" },
  { field: "teacher.teachers.*.model", of: "model" },
  { field: "teacher.tokenizer", of: "model" },
  { field: "teacher.teachers.*.tokenizer", of: "model" },
  { field: "student.model", of: "model" },
  { field: "student.shape", of: "shape" },
  { field: "student.shapes.widths.*.shape", of: "shape" },
  { field: "data.train", of: "dataset" },
  // Where several files may stand, a list of them has their paths.
  { field: "data.train.*.path", of: "dataset" },
  { field: "data.heldOut", of: "dataset" },
  { field: "data.heldOut.*.path", of: "dataset" },
  // A task's file, or the data of one that stands in the recipe itself.
  { field: "evaluate.tasks.*", of: "dataset" },
  { field: "evaluate.tasks.*.data", of: "dataset" },
  { field: "evaluate.tasks.*.data.*", of: "dataset" },
  { field: "teacher.cache.folder", of: "folder" },
  { field: "teacher.teachers.*.cache.folder", of: "folder" },
  { field: "output.folder", of: "folder" },
];

/**
 * The paths of a recipe, checked or not, as far as they are there; `student.model: teacher` is none, nor is a teacher's `model: student` or
 * `model: server`.
 */
export function recipePaths(recipe: unknown): RecipePath[] {
  return FIELDS.flatMap(({ field, of }) =>
    valuesAt(recipe, field.split(".")).flatMap(({ field, value }) => {
      const isPath = typeof value === "string" && value !== "" &&
        value !== (field === "student.model" ? "teacher" : of === "model" ? "student" : undefined) &&
        (!/^teacher\.(teachers\.\d+\.)?model$/.test(field) || value !== "server");
      return isPath ? [{ field, of, path: value as string }] : [];
    })
  );
}

/** The values of a field, and the field of each: `*` stands for every entry of a list. */
function valuesAt(
  value: unknown,
  [key, ...rest]: readonly string[],
  at: readonly string[] = [],
): { field: string; value: unknown }[] {
  if (key === undefined) return [{ field: at.join("."), value }];
  if (key === "*") {
    return Array.isArray(value) ? value.flatMap((entry, i) => valuesAt(entry, rest, [...at, `${i}`])) : [];
  }
  return isObject(value) ? valuesAt(value[key], rest, [...at, key]) : [];
}

/** The paths of what a run reads. */
export function inputPaths(recipe: unknown): RecipePath[] {
  return recipePaths(recipe).filter(({ of }) => of !== "folder");
}

/** A copy of a recipe, checked or not, with other paths; undefined takes the field away. */
export function mapRecipePaths<R>(recipe: R, map: (path: RecipePath) => string | undefined): R {
  return recipePaths(recipe).reduce(
    (copy, found) => withField(copy, found.field.split("."), map(found)),
    recipe,
  );
}

/** A copy of a recipe, checked or not, whose relative paths are taken from `folder`; models of the hub stay names. */
export function absolutePaths<R>(recipe: R, folder: string): R {
  return mapRecipePaths(recipe, (path) => absolutePath(path, folder));
}

/** A path taken from `folder` where it is relative, or the name of a model or dataset of the hub. */
export function absolutePath(named: Pick<RecipePath, "of" | "path">, folder: string): string {
  return isAbsolute(named.path) || isOnHub(named) ? named.path : resolve(folder, named.path);
}

/** Whether a path is the name of a model or a dataset of the hub. */
export function isOnHub({ of, path }: Pick<RecipePath, "of" | "path">): boolean {
  return of === "model" ? isHubName(path) : of === "dataset" && isHubDataset(path);
}

function withField<R>(group: R, [key, ...rest]: readonly string[], value: string | undefined): R {
  const copy = (Array.isArray(group) ? [...group] : { ...group }) as Record<string, unknown>;
  if (rest.length > 0) copy[key!] = withField(copy[key!], rest, value);
  else if (value === undefined) delete copy[key!];
  else copy[key!] = value;
  return copy as R;
}
