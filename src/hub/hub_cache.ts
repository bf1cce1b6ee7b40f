/**
 * The cache that is shared with Python's huggingface_hub:
 *
 * ```
 * models--org--name/
 *   blobs/<hash>                      a file's bytes, once: sha256 of large files, git's sha1 of small ones
 *   refs/<revision>                   the commit that a branch or tag stood for when it was last asked for
 *   snapshots/<commit>/<path>         links to the blobs
 * .locks/models--org--name/<hash>.lock   locked by the process that fetches a blob
 * ```
 *
 * @module
 */
import { createHash } from "node:crypto";
// @ts-types="../../types/std_path.d.ts"
import { basename, dirname, join, relative, resolve, SEPARATOR } from "@std/path";
import { exists, isFile, isTaken, openFile, unwritable, writeTextAtomically } from "../formats/files.ts";
import { InputError } from "../base/errors.ts";
import { type HubName, isCommit } from "./hub_name.ts";
import { datasetFiles } from "../text/read/files.ts";

/** A place in the cache. */
export interface CachedPlace {
  /** Absent of models. */
  readonly kind?: "dataset";
  readonly cacheFolder: string;
  readonly repository: string;
  readonly commit: string;
  /** Within the snapshot: a GGUF file, or a folder; of a dataset a file, or several by names in braces. The whole when absent. */
  readonly path?: string;
}

/** The folder of a repository. */
function repositoryFolder(place: Omit<CachedPlace, "commit" | "path">): string {
  return join(place.cacheFolder, folderName(place));
}

function folderName({ kind, repository }: Pick<CachedPlace, "kind" | "repository">): string {
  return `${kind ?? "model"}s--${repository.replaceAll("/", "--")}`;
}

/** Where the bytes of a file lie. */
export function blobPath(place: Omit<CachedPlace, "commit">, hash: string): string {
  return join(repositoryFolder(place), "blobs", hash);
}

/** The file whose lock whoever fetches a blob has. */
export function blobLock(place: Omit<CachedPlace, "commit">, hash: string): string {
  return join(place.cacheFolder, ".locks", folderName(place), `${hash}.lock`);
}

/** Where a model lies, or would lie. */
export function placePath(place: CachedPlace): string {
  return join(repositoryFolder(place), "snapshots", place.commit, ...place.path?.split("/") ?? []);
}

/** The place that a path means; undefined where it leads into no snapshot of a cache. */
export function placeOf(path: string): CachedPlace | undefined {
  const parts = resolve(path).split(SEPARATOR);
  const at = parts.findLastIndex((part, i) =>
    part === "snapshots" && isCommit(parts[i + 1] ?? "") && /^(model|dataset)s--./.test(parts[i - 1] ?? "")
  );
  if (at < 0) return undefined;
  const within = parts.slice(at + 2);
  const [kind, repository] = splitOnce(parts[at - 1]!, "s--");
  return {
    ...(kind === "dataset" ? { kind } : {}),
    cacheFolder: parts.slice(0, at - 1).join(SEPARATOR) || SEPARATOR,
    repository: repository.replace("--", "/"),
    commit: parts[at + 1]!,
    ...(within.length > 0 ? { path: within.join("/") } : {}),
  };
}

function splitOnce(text: string, at: string): [string, string] {
  const place = text.indexOf(at);
  return [text.slice(0, place), text.slice(place + at.length)];
}

/** The commit that a revision stood for when it was last asked for. */
export async function cachedCommit(
  { kind, repository, revision }: HubName,
  cacheFolder: string,
): Promise<string | undefined> {
  if (isCommit(revision)) return revision;
  const path = join(
    repositoryFolder({ ...(kind ? { kind } : {}), cacheFolder, repository }),
    "refs",
    ...revision.split("/"),
  );
  const commit = (await Deno.readTextFile(path).catch(() => "")).trim();
  return isCommit(commit) ? commit : undefined;
}

/** Keeps which commit a revision stands for; a cache that may only be read stays as it is. */
export async function keepCommit(place: CachedPlace, revision: string): Promise<void> {
  if (revision === place.commit) return;
  const path = join(repositoryFolder(place), "refs", ...revision.split("/"));
  if (await Deno.readTextFile(path).catch(() => "") === place.commit) return;
  try {
    await Deno.mkdir(dirname(path), { recursive: true });
    await writeTextAtomically(path, place.commit);
  } catch (error) {
    if (!(unwritable(path, error) instanceof InputError)) throw error;
  }
}

/**
 * Gives a blob its name in a snapshot. Where the system knows no links, such as Windows without the right to make them, the file itself
 * is moved there.
 */
export async function linkBlob(place: CachedPlace, path: string, hash: string): Promise<void> {
  const blob = blobPath(place, hash);
  const pointer = placePath({ ...place, path });
  if (await exists(pointer)) return;
  const folder = dirname(pointer);
  await Deno.mkdir(folder, { recursive: true });
  // A link that leads nowhere, because someone removed its blob.
  if (await isTaken(pointer)) await Deno.remove(pointer).catch(() => {});
  try {
    await Deno.symlink(relative(folder, blob), pointer, { type: "file" });
  } catch (error) {
    if (await isTaken(pointer)) return;
    if (Deno.build.os !== "windows") throw error;
    await Deno.rename(blob, pointer);
  }
}

/**
 * The blobs that the links at a path lead to, so that a process may be allowed to read them: it needs more than the path itself. Links that
 * lead out of the cache's blobs are left aside.
 */
export async function blobsAt(path: string): Promise<string[]> {
  const place = placeOf(path);
  if (!place) return [];
  const folder = await Deno.realPath(repositoryFolder(place)).catch(() => undefined);
  if (folder === undefined) return [];
  // Newer versions of Python's library share blobs between repositories: links to <cache>/blobs/<prefix>/<hash>.
  const homes = [join(folder, "blobs"), join(dirname(folder), "blobs")].map((home) => home + SEPARATOR);
  const found = new Set<string>();
  for (const file of await isFile(path) ? [path] : await filesIn(path)) {
    const real = await Deno.realPath(file).catch(() => undefined);
    if (real && homes.some((home) => real.startsWith(home))) found.add(real);
  }
  return [...found];
}

async function filesIn(folder: string): Promise<string[]> {
  const files: string[] = [];
  for await (const { name } of Deno.readDir(folder)) {
    if (await isFile(join(folder, name))) files.push(join(folder, name));
  }
  return files.sort();
}

/** Which files of a snapshot a run used. */
export interface HubRecord {
  readonly repository: string;
  readonly commit: string;
  /** Hash of each file by its path in the repository: sha256 of large files, git's sha1 of small ones. */
  readonly files: Readonly<Record<string, string>>;
}

/** What of the hub lies at a path; undefined where that leads into no snapshot. */
export async function hubRecord(path: string): Promise<HubRecord | undefined> {
  const place = placeOf(path);
  if (!place) return undefined;
  const files: Record<string, string> = {};
  const add = async (file: string, name: string) => {
    // Blobs may be links in their turn: newer versions of Python's library share them between repositories.
    const target = await Deno.readLink(file).catch(() => "");
    files[name] = basename(dirname(target)) === "blobs" ? basename(target) : await gitHash(file);
  };
  if (place.kind === "dataset") {
    const folder = placePath({ ...place, path: "" });
    for (const file of await datasetFiles(path)) await add(file, relative(folder, file));
  } else if (await isFile(path)) await add(path, place.path!);
  else {
    for (const file of await filesIn(path)) {
      await add(file, [...place.path ? [place.path] : [], basename(file)].join("/"));
    }
  }
  return { repository: place.repository, commit: place.commit, files };
}

/** What git calls a file's content. */
export function gitHasher(size: number) {
  return createHash("sha1").update(`blob ${size}\0`);
}

async function gitHash(path: string): Promise<string> {
  const source = await openFile(path);
  try {
    const hash = gitHasher(source.size);
    for (let at = 0; at < source.size; at += 4 << 20) {
      hash.update(await source.read(at, Math.min(4 << 20, source.size - at)));
    }
    return hash.digest("hex");
  } finally {
    source.close?.();
  }
}
