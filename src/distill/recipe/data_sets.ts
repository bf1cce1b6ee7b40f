/**
 * Training and held-out data of a recipe as lists of named sets, however they are written.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename, extname } from "@std/path";
import { isObject } from "../../base/json.ts";
import type { DataRecipe, HeldOutSet, TrainingSet } from "./recipe.ts";

/** What a set may be called: it stands in tables, in events and in front of a slash. */
export const SET_NAME = /^[\p{L}\p{N}][\p{L}\p{N}._-]{0,63}$/u;
/** The same in words. */
export const SET_NAME_FORM =
  "at most 64 letters, digits, dots, dashes and underscores, a letter or a digit first";

/** The name of a set that is given none: its file's, without folder, and without ending unless that is wanted. */
export function setName(path: string, withEnding = false): string {
  const file = /\.(gz|gzip|zst|zstd)$/i.test(path) ? path.slice(0, path.lastIndexOf(".")) : path;
  const plain = basename(file, withEnding ? "" : extname(file)).replace(/[^\p{L}\p{N}._-]+/gu, "-").replace(
    /^[._-]+/,
    "",
  );
  return plain.slice(0, 64) || "data";
}

/** A set with a name. */
export type Named<S extends HeldOutSet> = S & { name: string };

/** The training sets; a file alone is a list of one. */
export function trainingSets({ train }: Pick<DataRecipe, "train">): Named<TrainingSet>[] {
  return (typeof train === "string" ? [{ path: train, weight: 1 }] : train).map(named);
}

/** The held-out sets, the one first that decides; undefined where they are split from the training sets. */
export function heldOutSets({ heldOut }: Pick<DataRecipe, "heldOut">): Named<HeldOutSet>[] | undefined {
  if (heldOut === undefined) return undefined;
  return (typeof heldOut === "string" ? [{ path: heldOut }] : heldOut).map(named);
}

function named<S extends HeldOutSet>(set: S): Named<S> {
  return { ...set, name: set.name ?? setName(set.path) };
}

/** The same data, checked or not, with a name for each set of a list: paths may change later, what a set is called may not. */
export function withSetNames(data: Record<string, unknown>): Record<string, unknown> {
  const copy = { ...data };
  for (const field of ["train", "heldOut"]) {
    const sets = data[field];
    if (!Array.isArray(sets)) continue;
    copy[field] = withNames(sets, "path");
  }
  return copy;
}

/**
 * The entries of a list, checked or not, with a name for each that has none: of the file that it names, with its ending where another entry
 * has the same name without.
 */
export function withNames(entries: readonly unknown[], field: "path" | "model" = "model"): unknown[] {
  const paths = entries.map((entry) => {
    const path = isObject(entry) && entry.name === undefined ? entry[field] : undefined;
    return typeof path === "string" && path !== "" ? path : undefined;
  });
  const names = entries.map((entry, i) =>
    paths[i] === undefined ? isObject(entry) ? entry.name : undefined : setName(paths[i])
  );
  return entries.map((entry, i) => {
    const path = paths[i];
    if (path === undefined) return entry;
    const isShared = names.some((name, j) => j !== i && name === names[i]);
    return { ...entry as object, name: isShared ? setName(path, true) : names[i] };
  });
}
