/**
 * The files that a path of a dataset means: itself, or several that are read one after another.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename, dirname, join } from "@std/path";
import { InputError } from "../../base/errors.ts";

/** Whether a path may mean several files. */
export function isPattern(path: string): boolean {
  return basename(path).includes("*");
}

/** Whether a file's name is one of those that a pattern means. */
export function matches(pattern: string, name: string): boolean {
  return new RegExp(`^${pattern.split("*").map(RegExp.escape).join(".*")}$`, "s").test(name);
}

/**
 * The files of a dataset, in the order of their names: those of a folder that a `*` in the last part of the path stands for.
 *
 * @example
 * ```ts ignore
 * await datasetFiles("data/train-*.parquet"); // ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]
 * ```
 *
 * @throws {InputError} a pattern that means none
 */
export async function datasetFiles(path: string): Promise<string[]> {
  if (!isPattern(path)) return [path];
  const [folder, pattern] = [dirname(path), basename(path)];
  const names: string[] = [];
  try {
    for await (const { name, isDirectory } of Deno.readDir(folder)) {
      if (!isDirectory && matches(pattern, name)) names.push(name);
    }
  } catch (cause) {
    throw new InputError(`cannot be listed: ${(cause as Error).message}`, { where: folder, cause });
  }
  if (names.length > 0) return names.sort().map((name) => join(folder, name));
  throw new InputError(`no file in ${folder} has a name like ${pattern}`, {
    where: path,
    hint: "A * stands for any letters of a file's name; folders are named as they are.",
  });
}
