/**
 * The files that a path of a dataset means: itself, or several that are read one after another.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename, dirname, join } from "@std/path";
import { system } from "../../base/system.ts";
import { InputError } from "../../base/errors.ts";

/** Names in braces: `train-{0,1}.parquet`. */
const LIST = /^([^{}]*)\{([^{}]+)\}([^{}]*)$/s;

/** Whether the last part of a path stands for the files of a folder that there are. */
function isPattern(path: string): boolean {
  return basename(path).includes("*");
}

/** Whether a file's name is one of those that a pattern means. */
export function matches(pattern: string, name: string): boolean {
  return new RegExp(`^${pattern.split("*").map(RegExp.escape).join(".*")}$`, "s").test(name);
}

/** One path for some files of one folder, in their order; undefined where no such path stands for them. */
export function listedPath(files: readonly string[]): string | undefined {
  const [first, ...others] = files as [string, ...string[]];
  if (others.length === 0) return first;
  const folder = dirname(first);
  if (others.some((file) => dirname(file) !== folder)) return undefined;
  const names = files.map((file) => basename(file));
  if (names.some((name) => /[{},]/.test(name))) return undefined;
  const shortest = Math.min(...names.map(({ length }) => length));
  let [begin, end] = [0, 0];
  while (begin < shortest && names.every((name) => name[begin] === names[0]![begin])) begin++;
  while (end < shortest - begin && names.every((name) => name.at(-1 - end) === names[0]!.at(-1 - end))) end++;
  const inner = names.map((name) => name.slice(begin, name.length - end));
  const name = `${names[0]!.slice(0, begin)}{${inner.join(",")}}${names[0]!.slice(names[0]!.length - end)}`;
  return folder === "." && !first.startsWith("./") ? name : join(folder, name);
}

/**
 * The files of a dataset. A `*` in the last part of its path stands for the files of that folder, in the order of their names; names in braces for
 * each of them, whether they are there or not.
 *
 * @example
 * ```ts ignore
 * await datasetFiles("data/train-*.parquet"); // ["data/train-0.parquet", "data/train-1.parquet"]
 * await datasetFiles("data/train-{0,1}.parquet"); // the same
 * ```
 *
 * @throws {InputError} a pattern that means none
 */
export async function datasetFiles(path: string): Promise<string[]> {
  const list = LIST.exec(basename(path));
  if (list && list[2]!.includes(",") && !await isThere(path)) {
    return list[2]!.split(",").map((part) => join(dirname(path), `${list[1]}${part}${list[3]}`));
  }
  if (!isPattern(path)) return [path];
  const [folder, pattern] = [dirname(path), basename(path)];
  const names: string[] = [];
  try {
    for await (const { name, isDirectory } of system.readDir(folder)) {
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

/** A path without a `*`: what it stands for is decided once, since the process of a run may list no folders. */
export async function withoutPattern(path: string): Promise<string> {
  if (!isPattern(path)) return path;
  const files = await datasetFiles(path);
  const listed = listedPath(files);
  if (listed !== undefined) return listed;
  throw new InputError("stands for files with commas or braces in their names, which cannot be listed", {
    where: path,
    hint: "Rename them, or name each as a set of its own.",
  });
}

async function isThere(path: string): Promise<boolean> {
  return await system.stat(path).then(() => true, () => false);
}
