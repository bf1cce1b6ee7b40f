/**
 * Which files of a dataset's repository are fetched: those of one split, in one format.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";
import { isDatasetName } from "../text/read/format.ts";
import { listedPath, matches } from "../text/read/files.ts";
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
 * Chooses from what there is. What is wanted together lies in one folder.
 *
 * @param listing Every file of the repository
 * @param path A file, several by a `*` or by names in braces, or a folder that was named, if any
 * @param name How errors call the dataset
 * @returns `only` is the file, or a path with the names of several in braces
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
  if (path !== undefined && /[*{]/.test(path)) {
    const found = data.filter((file) => folderOf(file) === folderOf(path) && isMeant(path, file));
    const only = found.length > 0 ? listedPath(found) : undefined;
    return only === undefined
      ? refuse(`the repository has no data files like ${path}`, data)
      : { files: found, only };
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
  const only = listedPath(files);
  if (only === undefined || (train.length === 0 && files.length > 1)) {
    return refuse(`it is not clear which of its ${within.length} data files are meant`, within);
  }
  return { files, only };
}

/** Whether a path with a `*`, or with names in braces, means a file of its folder. */
function isMeant(path: string, file: string): boolean {
  const list = /^([^{}]*)\{([^{}]+)\}([^{}]*)$/.exec(path);
  return list
    ? list[2]!.split(",").some((part) => `${list[1]}${part}${list[3]}` === file)
    : matches(path, file);
}

function folderOf(file: string): string {
  return file.slice(0, file.lastIndexOf("/") + 1);
}

/** The whole name of a file. */
function named(name: string, file: string): string {
  const [whole, revision] = name.split("@");
  const repository = whole!.split("/").slice(0, 3).join("/");
  return `${repository}/${file}${revision === undefined ? "" : `@${revision}`}`;
}
