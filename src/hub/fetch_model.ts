/**
 * Brings models of the hub onto the disk: finds out which commit a name means and which files it needs, and fetches those that are not in
 * the cache.
 *
 * @module
 */
import type {
  datasetInfo as DatasetInfo,
  listFiles as ListFiles,
  modelInfo as ModelInfo,
} from "@huggingface/hub";
// @ts-types="../../types/std_path.d.ts"
import { dirname, join } from "@std/path";
import { InputError, LimbeckError } from "../base/errors.ts";
import { exists, freeBytes, isFile } from "../formats/files.ts";
import { parseShardIndex } from "../formats/safetensors/shard_index.ts";
import { downloadBlob, DownloadFullError, type HubFile } from "./blob_download.ts";
import {
  blobPath,
  cachedCommit,
  type CachedPlace,
  keepCommit,
  linkBlob,
  placeOf,
  placePath,
} from "./hub_cache.ts";
import { datasetFiles } from "../text/read/files.ts";
import { neededDataset } from "./needed_dataset.ts";
import { type HubName, isCommit, isHubName, parseHubName, writeHubName } from "./hub_name.ts";
import {
  HubError,
  hubFetch,
  HubUnreachableError,
  type Patience,
  USUAL_PATIENCE,
  within,
} from "./hub_requests.ts";
import { type HubSettings, hubSettings } from "./hub_settings.ts";
import { isGguf, neededFiles } from "./needed_files.ts";

/** How far a fetch is. */
export interface FetchProgress {
  /** The model, as `hf:org/name`. */
  readonly name: string;
  /** The file that is fetched. */
  readonly file: string;
  /** Bytes of all its files that are there, and that it has. */
  readonly bytes: number;
  readonly bytesTotal: number;
}

/** How models are fetched. */
export interface FetchOptions {
  /** What the environment says when absent. */
  readonly settings?: HubSettings;
  readonly patience?: Patience;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: FetchProgress) => void;
  /** Told what the user should know, in words. */
  readonly onNote?: (message: string) => void;
}

/** A model on its way: where it lies, and what of the repository it needs. */
interface Listed {
  readonly place: CachedPlace;
  readonly name: string;
  readonly files: ReadonlyMap<string, HubFile>;
  readonly needed: readonly string[];
  readonly index: string | undefined;
}

/**
 * Brings a model onto the disk, unless it is there.
 *
 * @returns its path in the cache: a folder, or a GGUF file
 * @throws {HubRefusal} the hub has no such model, revision or file, or does not give it to whoever asks
 * @throws {InputError} nothing that could be read is there; offline, it is not in the cache
 * @throws {HubError} the hub cannot be reached, cuts off again and again, or sends what is not right
 * @throws {DownloadFullError} the disk cannot hold it
 */
export async function fetchModel(model: HubName, options: FetchOptions = {}): Promise<string> {
  const settings = options.settings ?? hubSettings();
  if (settings.offline) return await cachedModel(model, settings);
  let listed: Listed;
  try {
    listed = await lookUp(model, settings, options);
  } catch (error) {
    if (!(error instanceof HubUnreachableError)) throw error;
    const path = await cachedModel(model, settings).catch(() => undefined);
    if (path === undefined) throw error;
    options.onNote?.(`${error.message}; what the cache has of it is used: ${path}`);
    return path;
  }
  await fetchListed(listed, settings, options);
  await keepCommit(listed.place, model.revision);
  return placePath(listed.place);
}

/**
 * The path of a model that was named by its path, or as one of the hub, which is then fetched.
 *
 * @throws as {@linkcode fetchModel}
 */
export async function localModel(model: string, options: FetchOptions = {}): Promise<string> {
  return isHubName(model) ? await fetchModel(parseHubName(model), options) : model;
}

/**
 * Finds out where a model will lie, without fetching it.
 *
 * @throws as {@linkcode fetchModel}
 */
export async function locateModel(model: HubName, options: FetchOptions = {}): Promise<string> {
  const settings = options.settings ?? hubSettings();
  if (settings.offline) return await cachedModel(model, settings);
  return placePath((await lookUp(model, settings, options)).place);
}

/**
 * Brings back what is missing at a place of a cache, such as for a run whose models were removed from it.
 *
 * @throws as {@linkcode fetchModel}
 */
export async function fetchPlace(place: CachedPlace, options: FetchOptions = {}): Promise<void> {
  const { kind, repository, commit: revision, path } = place;
  const settings = { ...options.settings ?? hubSettings(), cacheFolder: place.cacheFolder };
  await fetchModel({
    ...(kind ? { kind } : {}),
    repository,
    revision,
    ...(path === undefined ? {} : { path }),
  }, {
    ...options,
    settings,
  });
}

/** Whether all that a model is read from lies at a path. */
export async function isWhole(path: string): Promise<boolean> {
  return (await missingAt(path)).length === 0;
}

/** A model that the cache has. */
async function cachedModel(model: HubName, { cacheFolder }: HubSettings): Promise<string> {
  const name = writeHubName(model);
  const hint = "Fetch it while there is a connection: without --offline, and with HF_HUB_OFFLINE not set.";
  const commit = await cachedCommit(model, cacheFolder);
  if (commit === undefined) {
    throw new InputError(`is not in the cache, and offline nothing is fetched`, { where: name, hint });
  }
  const { path } = model;
  if (model.kind === "dataset") return await cachedDataset(placeFor(model, cacheFolder, commit), path, name);
  let place: CachedPlace = {
    ...placeFor(model, cacheFolder, commit),
    ...(path === undefined ? {} : { path }),
  };
  const whole = placePath(place);
  const only = path === undefined && !await exists(join(whole, "config.json")) ? await onlyGguf(whole) : [];
  if (only.length === 1) place = { ...place, path: only[0]! };
  const missing = await missingAt(placePath(place));
  if (missing.length === 0) return placePath(place);
  throw new InputError(`the cache has no ${missing.join(", ")} of it, and offline nothing is fetched`, {
    where: name,
    hint,
  });
}

function placeFor({ kind, repository }: HubName, cacheFolder: string, commit: string): CachedPlace {
  return { ...(kind ? { kind } : {}), cacheFolder, repository, commit };
}

/** The files of a dataset that the cache has. */
async function cachedDataset(place: CachedPlace, path: string | undefined, name: string): Promise<string> {
  const listing = await filesBelow(placePath(place));
  return placePath({ ...place, path: neededDataset(listing, path, name).only! });
}

async function filesBelow(folder: string, within = ""): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (isDirectory) found.push(...await filesBelow(join(folder, name), `${within}${name}/`));
    else found.push(within + name);
  }
  return found.sort();
}

async function onlyGguf(folder: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const { name } of Deno.readDir(folder)) if (isGguf(name)) names.push(name);
  } catch {
    // There is no such folder.
  }
  return names;
}

/** What is missing of a model, or the files of a dataset, as far as what is there tells. */
async function missingAt(path: string): Promise<string[]> {
  if (placeOf(path)?.kind === "dataset") {
    const isThere = async (file: string) => await isFile(file);
    const files = await datasetFiles(path).catch(() => []);
    const there = files.length > 0 && (await Promise.all(files.map(isThere))).every(Boolean);
    return there ? [] : [path.split(/[/\\]/).at(-1)!];
  }
  if (isGguf(path)) return await isFile(path) ? [] : [path.split(/[/\\]/).at(-1)!];
  const has = (name: string) => isFile(join(path, name));
  if (await has("adapter_config.json") && await has("adapter_model.safetensors")) return [];
  const missing = await has("config.json") ? [] : ["config.json"];
  if (await has("model.safetensors")) return missing;
  const index = join(path, "model.safetensors.index.json");
  if (!await isFile(index)) return [...missing, "model.safetensors"];
  for (const shard of parseShardIndex(await Deno.readTextFile(index), index).keys()) {
    if (!await has(shard)) missing.push(shard);
  }
  return missing;
}

/** The library is loaded by who fetches alone: most commands do not. */
async function library(): Promise<
  { listFiles: typeof ListFiles; modelInfo: typeof ModelInfo; datasetInfo: typeof DatasetInfo }
> {
  return await import("@huggingface/hub");
}

/** Asks the hub for the commit and its files. */
async function lookUp(model: HubName, settings: HubSettings, options: FetchOptions): Promise<Listed> {
  const { listFiles, modelInfo, datasetInfo } = await library();
  const name = writeHubName(model);
  const { kind, repository, revision } = model;
  const { patience = USUAL_PATIENCE, signal } = options;
  const fetch = hubFetch({ settings, name, patience, ...(signal ? { signal } : {}) });
  const asked = { hubUrl: settings.endpoint, fetch: fetch as typeof globalThis.fetch };
  const answer = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await within(work(), 2 * patience.silence, signal);
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof LimbeckError) throw error;
      throw new HubError(
        `${name}: what ${settings.endpoint} answers cannot be read: ${(error as Error).message}`,
        {
          hint: "Is it a server that speaks the hub's protocol? See HF_ENDPOINT.",
          cause: error,
        },
      );
    }
  };
  const commit = isCommit(revision) ? revision : await answer(async () => {
    const wanted = { name: repository, revision, ...asked };
    const { sha } = kind === "dataset"
      ? await datasetInfo({ ...wanted, additionalFields: ["sha"] })
      : await modelInfo({ ...wanted, additionalFields: ["sha"] });
    if (typeof sha !== "string" || !isCommit(sha)) throw new Error(`"${sha}" is no commit`);
    return sha;
  });
  const files = new Map<string, HubFile>();
  await answer(async () => {
    const entries = listFiles({
      repo: { type: kind ?? "model", name: repository },
      revision: commit,
      recursive: true,
      ...asked,
    });
    for await (const { type, path, size, oid, lfs } of entries) {
      const hash = lfs?.oid ?? oid ?? "";
      // What is not formed so is no file that we would ask for.
      const isSound = type === "file" && /^([0-9a-f]{40}|[0-9a-f]{64})$/.test(hash) &&
        Number.isSafeInteger(size);
      if (isSound) files.set(path, { path, size, hash });
    }
  });
  const listing = [...files.keys()];
  const { files: needed, index, only } = kind === "dataset"
    ? neededDataset(listing, model.path, name)
    : neededFiles(listing, model.path, name);
  const path = kind === "dataset" ? only : model.path ?? only;
  const { cacheFolder } = settings;
  return {
    place: { ...placeFor(model, cacheFolder, commit), ...(path === undefined ? {} : { path }) },
    ...{ name, files, needed, index },
  };
}

/** Fetches what is needed and not there, the index first, which says what else is. */
async function fetchListed(listed: Listed, settings: HubSettings, options: FetchOptions): Promise<void> {
  const { place, name, files, needed, index } = listed;
  const { patience = USUAL_PATIENCE, signal } = options;
  const fetch = hubFetch({ settings, name, patience, ...(signal ? { signal } : {}) });
  const snapshot = { ...place, path: undefined };
  const all = [...needed];
  const wanted = () => all.map((path) => files.get(path)!);
  const total = () => wanted().reduce((sum, { size }) => sum + size, 0);
  const isThere = (path: string) => exists(placePath({ ...place, path }));
  await checkAccess();
  await checkSpace();
  let done = 0;
  for (let i = 0; i < all.length; i++) {
    const file = files.get(all[i]!)!;
    if (!await isThere(file.path)) {
      await downloadBlob(file, {
        ...{ place: snapshot, name, fetch, patience },
        url: urlOf(file.path),
        ...(signal ? { signal } : {}),
        onBytes: (bytes) =>
          options.onProgress?.({ name, file: file.path, bytes: done + bytes, bytesTotal: total() }),
        onWait: () => options.onNote?.(`${name}: another process fetches ${file.path}; waiting for it`),
      });
      await linkBlob(snapshot, file.path, file.hash);
    }
    done += file.size;
    if (file.path !== index) continue;
    all.push(...await shardsOf(index));
    await checkSpace();
  }

  function urlOf(path: string): string {
    const encoded = path.split("/").map(encodeURIComponent).join("/");
    const of = place.kind === "dataset" ? "datasets/" : "";
    return `${settings.endpoint}/${of}${place.repository}/resolve/${place.commit}/${encoded}`;
  }

  /** Whoever may not have the files learns it before anything is made in the cache. */
  async function checkAccess(): Promise<void> {
    for (const { path } of wanted()) {
      if (await isThere(path)) continue;
      const response = await fetch(urlOf(path), { method: "HEAD", redirect: "manual" });
      return await response.body?.cancel();
    }
  }

  async function checkSpace(): Promise<void> {
    let bytes = 0;
    for (const { path, size, hash } of wanted()) {
      if (await isThere(path)) continue;
      const blob = blobPath(snapshot, hash);
      const sizes = await Promise.all(
        [blob, `${blob}.incomplete`].map((file) => Deno.stat(file).then(({ size }) => size, () => 0)),
      );
      bytes += Math.max(0, size - Math.max(...sizes));
    }
    let folder = place.cacheFolder;
    while (!await exists(folder) && dirname(folder) !== folder) folder = dirname(folder);
    const free = await freeBytes(folder);
    if (free === undefined || bytes <= free) return;
    throw new DownloadFullError(
      `${name}: disk full: ${bytes} bytes are to be fetched, and ${free} are free in ${folder}`,
      { hint: "Free space there, or choose another place for all models with HF_HOME." },
    );
  }

  /** The files that hold the weights, from an index that is there. */
  async function shardsOf(index: string): Promise<string[]> {
    const path = placePath({ ...place, path: index });
    const folder = index.includes("/") ? index.slice(0, index.lastIndexOf("/") + 1) : "";
    const shards = [...parseShardIndex(await Deno.readTextFile(path), path).keys()].map((shard) =>
      folder + shard
    );
    const missing = shards.filter((shard) => !files.has(shard));
    if (missing.length === 0) return shards;
    throw new InputError(`the repository has no ${missing.join(", ")}, which its index names`, {
      where: name,
      hint: "It was not uploaded whole: tell whoever made it, or name another revision.",
    });
  }
}
