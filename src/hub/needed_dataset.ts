/**
 * Which files of a dataset's repository are fetched: those of one split, in one format.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";
import { isDatasetName } from "../text/read/format.ts";
import { matches } from "../text/read/files.ts";
import type { NeededFiles } from "./needed_files.ts";

/** Files of a repository that say something of the data, and hold none. */
const ABOUT: ReadonlySet<string> = new Set([
  "dataset_infos.json",
  "dataset_info.json",
  "dataset_dict.json",
  "state.json",
]);
/** The first of them that there is. */
const FORMATS: readonly RegExp[] = [
  /\.(parquet|pq)$/i,
  /\.(jsonl|ndjson|jsonlines)(\.\w+)?$/i,
  /\.json(\.\w+)?$/i,
  /./,
];
/** Part of the name of a file or a folder of the training split. */
const TRAIN = /(^|[/._-])train(ing)?([/._-]|$)/i;

/**
 * Chooses from what there is. What is wanted together lies in one folder and has names that one pattern stands for.
 *
 * @param listing Every file of the repository
 * @param path A file, several by a `*` in their names, or a folder that was named, if any
 * @param name How errors call the dataset
 * @returns `only` is the file, or the pattern
 * @throws {InputError} nothing that could be read, or more than one choice
 */
export function neededDataset(
  listing: readonly string[],
  path: string | undefined,
  name: string,
): NeededFiles {
  const data = listing.filter((file) => isDatasetName(file) && !ABOUT.has(file.split("/").at(-1)!)).sort();
  const refuse = (why: string, some: readonly string[]): never => {
    const shown = some.slice(0, 8).map((file) => named(name, file)).join(", ");
    throw new InputError(why, {
      where: name,
      hint: some.length === 0
        ? "Datasets are Parquet, JSON Lines, JSON or CSV; look for a revision that has them, such as @refs/convert/parquet."
        : `Name one: ${shown}${
          some.length > 8 ? " or another" : ""
        }. A * in the last part stands for several files.`,
    });
  };
  if (path !== undefined && listing.includes(path)) return { files: [path], only: path };
  if (path?.includes("*")) {
    const found = data.filter((file) => matches(path, file) && folderOf(file) === folderOf(path));
    return found.length > 0
      ? { files: found, only: path }
      : refuse(`the repository has no data files like ${path}`, data);
  }
  const within = path === undefined ? data : data.filter((file) => file.startsWith(`${path}/`));
  if (within.length === 0) {
    return refuse(
      path === undefined ? "the repository has no data that could be read" : `the repository has no ${path}`,
      data,
    );
  }
  const train = within.filter((file) => TRAIN.test(file.slice(path === undefined ? 0 : path.length + 1)));
  const split = train.length > 0 ? train : within;
  const format = FORMATS.find((pattern) => split.some((file) => pattern.test(file)))!;
  const files = split.filter((file) => format.test(file));
  const pattern = patternOf(files);
  const isExact = pattern !== undefined &&
    data.filter((file) => matches(pattern, file) && folderOf(file) === folderOf(pattern)).length ===
      files.length;
  if (!isExact || (train.length === 0 && files.length > 1)) {
    return refuse(`it is not clear which of its ${within.length} data files are meant`, within);
  }
  return { files, only: pattern };
}

function folderOf(file: string): string {
  return file.slice(0, file.lastIndexOf("/") + 1);
}

/** What stands for all of some files of one folder; undefined where they lie in several. */
function patternOf(files: readonly string[]): string | undefined {
  const [first, ...others] = files as [string, ...string[]];
  if (others.length === 0) return first;
  const folder = folderOf(first);
  if (others.some((file) => folderOf(file) !== folder)) return undefined;
  const names = files.map((file) => file.slice(folder.length));
  const shortest = Math.min(...names.map(({ length }) => length));
  let [begin, end] = [0, 0];
  while (begin < shortest && names.every((name) => name[begin] === names[0]![begin])) begin++;
  while (end < shortest - begin && names.every((name) => name.at(-1 - end) === names[0]!.at(-1 - end))) end++;
  return `${folder}${names[0]!.slice(0, begin)}*${names[0]!.slice(names[0]!.length - end)}`;
}

/** The whole name of a file. */
function named(name: string, file: string): string {
  const [whole, revision] = name.split("@");
  const repository = whole!.split("/").slice(0, 3).join("/");
  return `${repository}/${file}${revision === undefined ? "" : `@${revision}`}`;
}
