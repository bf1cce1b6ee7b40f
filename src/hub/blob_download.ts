/**
 * Fetches one file of the hub into a cache: continued where an earlier try was cut off, checked against its hash, and under its final
 * name only when it is whole.
 *
 * The library's own `downloadFileToCacheDir` does none of the three: it begins anew each time, believes what it gets, and lets two
 * processes write into one file.
 *
 * @module
 */
import { createHash } from "node:crypto";
// @ts-types="../../types/std_path.d.ts"
import { dirname } from "@std/path";
import { isDiskFull, LimbeckError } from "../base/errors.ts";
import { exists, isFile, unwritable } from "../formats/files.ts";
import { blobLock, blobPath, type CachedPlace, gitHasher } from "./hub_cache.ts";
import { HubError, type HubFetch, type Patience, pause, within } from "./hub_requests.ts";

/** A file as the hub lists it. */
export interface HubFile {
  /** In the repository. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** sha256 of a large file, else git's sha1: the name of its blob. */
  readonly hash: string;
}

/** How a file is fetched. */
export interface DownloadOptions {
  readonly place: CachedPlace;
  /** How errors call the model. */
  readonly name: string;
  readonly url: string;
  readonly fetch: HubFetch;
  readonly patience: Patience;
  readonly signal?: AbortSignal;
  /** Called with the bytes of the file that are there. */
  readonly onBytes?: (bytes: number) => void;
  /** Called when another process fetches the same file. */
  readonly onWait?: () => void;
}

/** The disk is full. What has arrived stays, and the next try goes on from there. */
export class DownloadFullError extends LimbeckError {
  override readonly code = "disk_full";
}

/**
 * Fetches a file, unless it is there or another process brings it meanwhile.
 *
 * @throws {HubRefusal} the hub does not give it
 * @throws {HubError} it was cut off too often, or what comes is not what its hash says
 * @throws {DownloadFullError} the disk is full
 */
export async function downloadBlob(file: HubFile, options: DownloadOptions): Promise<void> {
  const { place, signal, onBytes } = options;
  const path = blobPath(place, file.hash);
  const lockPath = blobLock(place, file.hash);
  try {
    await Deno.mkdir(dirname(path), { recursive: true });
    await Deno.mkdir(dirname(lockPath), { recursive: true });
    // Python locks the same file in the same way.
    using lock = await Deno.open(lockPath, { read: true, write: true, create: true });
    // A disk that knows no locks throws: there, several processes fetch the same bytes into the same places.
    const isOurs = () => lock.tryLock(true).catch(() => true);
    for (let told = false; !await isOurs(); told = true) {
      if (!told) options.onWait?.();
      await pause(LOOK_MS, signal);
    }
    if (!await exists(path)) await fetchWhole(file, path, options);
    onBytes?.(file.size);
  } catch (error) {
    if (!isDiskFull(error)) throw unwritable(path, error);
    const there = await Deno.stat(incomplete(path)).then(({ size }) => size, () => 0);
    throw new DownloadFullError(
      `${options.name}: disk full: ${there} of the ${file.size} bytes of ${file.path} are in ${
        dirname(path)
      }`,
      {
        hint: "Free space there, or choose another place for all models with HF_HOME. " +
          "The same command then goes on where it stopped.",
        cause: error,
      },
    );
  }
}

const LOOK_MS = 200;

function incomplete(path: string): string {
  return `${path}.incomplete`;
}

/** Bytes as they arrive, and their hash. */
class Partial {
  readonly #file: Deno.FsFile;
  readonly #target: HubFile;
  #hash: ReturnType<typeof createHash>;
  #size = 0;
  /** Bytes that an earlier try left. */
  kept = 0;

  constructor(file: Deno.FsFile, target: HubFile) {
    this.#file = file;
    this.#target = target;
    this.#hash = hasherOf(target);
  }

  get size(): number {
    return this.#size;
  }

  /** Whether the bytes that are there are those of the file. */
  isRight(): boolean {
    return this.#hash.copy().digest("hex") === this.#target.hash;
  }

  /** Takes over what an earlier try left. */
  async takeOver(): Promise<void> {
    const { size } = await this.#file.stat();
    if (size > this.#target.size) return await this.clear();
    const piece = new Uint8Array(1 << 20);
    await this.#file.seek(0, Deno.SeekMode.Start);
    for (let count; (count = await this.#file.read(piece)) !== null;) {
      this.#hash.update(piece.subarray(0, count));
      this.#size += count;
    }
    this.kept = this.#size;
  }

  async clear(): Promise<void> {
    await this.#file.truncate(0);
    this.#hash = hasherOf(this.#target);
    this.#size = this.kept = 0;
  }

  async add(bytes: Uint8Array): Promise<void> {
    await this.#file.seek(this.#size, Deno.SeekMode.Start);
    for (let done = 0; done < bytes.length;) {
      const count = await this.#file.write(bytes.subarray(done));
      this.#hash.update(bytes.subarray(done, done + count));
      this.#size += count;
      done += count;
    }
  }

  sync(): Promise<void> {
    return this.#file.sync();
  }
}

function hasherOf({ hash, size }: HubFile) {
  return hash.length === 64 ? createHash("sha256") : gitHasher(size);
}

async function fetchWhole(file: HubFile, path: string, options: DownloadOptions): Promise<void> {
  {
    using handle = await Deno.open(incomplete(path), { read: true, write: true, create: true });
    const partial = new Partial(handle, file);
    await partial.takeOver();
    for (;;) {
      await fetchRest(file, partial, options);
      if (partial.isRight()) break;
      // What an earlier try left may have been wrong: once from the beginning then.
      const again = partial.kept > 0;
      await partial.clear();
      if (again) continue;
      await Deno.remove(incomplete(path)).catch(() => {});
      throw new HubError(
        `${options.name}: what came as ${file.path} is not what its hash ${file.hash} says`,
        {
          hint:
            "The file was damaged on its way, or a server between here and the hub changes it. Nothing of it was kept.",
        },
      );
    }
    await partial.sync();
  }
  try {
    await Deno.rename(incomplete(path), path);
  } catch (error) {
    // Where locks do not hold, as on some network disks, another process was faster.
    if (!await isFile(path)) throw error;
  }
}

/** Asks for what is missing until it is there; a try that brings something new does not count. */
async function fetchRest(file: HubFile, partial: Partial, options: DownloadOptions): Promise<void> {
  const { fetch, url, name, patience, signal } = options;
  for (let tries = 0; partial.size < file.size;) {
    const from = partial.size;
    let cause: unknown;
    try {
      const response = await fetch(url, from > 0 ? { headers: { Range: `bytes=${from}-` } } : {});
      if (await takeRange(response, from, partial)) {
        await takeBody(response, file, partial, options);
        cause = new Error("the connection was closed");
      }
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof LimbeckError || isDiskFull(error)) throw error;
      cause = error;
    }
    if (partial.size === file.size) return;
    tries = partial.size > from ? 1 : tries + 1;
    if (tries >= patience.tries) {
      throw new HubError(
        `${name}: the download of ${file.path} was cut off after ${partial.size} of ${file.size} bytes` +
          (cause instanceof Error ? `: ${cause.message}` : ""),
        { hint: "What has arrived is kept: the same command goes on from there.", cause },
      );
    }
    await pause(patience.pause * 2 ** (tries - 1), signal);
  }
}

/** @returns whether its body continues what is there; else it was begun anew, or the answer cannot be used */
async function takeRange(response: Response, from: number, partial: Partial): Promise<boolean> {
  if (from === 0 && response.status === 200) return true;
  if (from > 0 && response.status === 206) {
    const start = /^bytes (\d+)-/.exec(response.headers.get("Content-Range") ?? "")?.[1];
    if (Number(start) === from) return true;
  }
  // A server that knows no ranges sends the whole.
  await partial.clear();
  if (response.status === 200) return true;
  await response.body?.cancel();
  return false;
}

async function takeBody(
  response: Response,
  file: HubFile,
  partial: Partial,
  { name, patience, signal, onBytes }: DownloadOptions,
): Promise<void> {
  const reader = response.body!.getReader();
  try {
    for (;;) {
      const { value, done } = await within(reader.read(), patience.silence, signal);
      if (done) return;
      if (partial.size + value.length > file.size) {
        await partial.clear();
        throw new HubError(`${name}: more came as ${file.path} than its ${file.size} bytes`, {
          hint: "A server between here and the hub answers in its place: check HF_ENDPOINT, or a proxy.",
        });
      }
      await partial.add(value);
      onBytes?.(partial.size);
    }
  } finally {
    // Not waited for: a connection that is dead need not answer.
    reader.cancel().catch(() => {});
  }
}
