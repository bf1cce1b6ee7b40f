/**
 * The store that belongs to a data folder: which kind it is, only this file knows.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join, resolve } from "@std/path";
import { InputError } from "../../base/errors.ts";
import { cachesFolder, evaluationsFolder } from "./layout.ts";
import { findRun } from "./run_folder.ts";
import { SqliteStore } from "./sqlite/store.ts";
import type { Store } from "./store.ts";
import { exists, isFile } from "../../formats/files.ts";

/** The data folder where none is named, in the working folder. */
export const DATA_FOLDER = "limbeck-data";

/** What has been measured of shapes, where no folder is named for it. */
export const EVALUATIONS_FOLDER = evaluationsFolder({ folder: DATA_FOLDER });

/** Folder of teachers' caches in a data folder. */
export function dataCaches(dataFolder: string = DATA_FOLDER): string {
  return resolve(cachesFolder({ folder: dataFolder }));
}

/**
 * Opens the store of a data folder; both are made where they are not there.
 *
 * @throws {InputError} the folder cannot be made, or its store cannot be opened
 */
export function openStore(dataFolder: string = DATA_FOLDER): Store {
  return SqliteStore.open(dataFolder);
}

/**
 * Opens the store of a data folder that may not be there; undefined then, and nothing is made.
 *
 * @throws {InputError} it is there and cannot be opened
 */
export async function openStoreIfThere(dataFolder: string = DATA_FOLDER): Promise<Store | undefined> {
  return await SqliteStore.isIn(dataFolder) ? openStore(dataFolder) : undefined;
}

/**
 * Opens the store that knows the run which `name` means: for the path of a run, or of a comparison, in a data folder, that folder's; else
 * the named one's or the default. A store is only made for a run that comes from elsewhere.
 *
 * @throws {InputError} as {@linkcode openStore}, or there is no store and no such run
 */
export async function openStoreOf(name: string, dataFolder?: string): Promise<Store> {
  const has = (file: string) => isFile(join(name, file));
  const isRun = name !== "" && (await has("manifest.json") || await has("compare.json"));
  const around = isRun && dataFolder === undefined
    ? await openStoreIfThere(resolve(name, "../.."))
    : undefined;
  const store = around ?? await openStoreIfThere(dataFolder);
  if (store) return store;
  if (isRun) return openStore(dataFolder);
  if (name !== "" && await exists(name)) {
    throw new InputError("is no run: there is no manifest.json in it", {
      where: resolve(name),
      hint: NO_RUNS_HINT,
    });
  }
  throw noRuns(name, dataFolder);
}

const NO_RUNS_HINT = "Name the run's folder, or its data folder with --data.";

function noRuns(name: string, dataFolder: string = DATA_FOLDER): InputError {
  return new InputError(`there is no run "${name}": ${resolve(dataFolder)} has no runs`, {
    hint: NO_RUNS_HINT,
  });
}

/**
 * The folder of the run that `name` means: a run id, the beginning of one, `last`, or its path, which needs no store.
 *
 * @throws {InputError} no such run, or several
 */
export async function findRunFolder(name: string, dataFolder: string = DATA_FOLDER): Promise<string> {
  const isRun = name !== "" &&
    await isFile(join(name, "manifest.json"));
  if (isRun) return resolve(name);
  using store = await openStoreIfThere(dataFolder);
  if (store) return (await findRun(name, store)).folder;
  throw noRuns(name, dataFolder);
}
