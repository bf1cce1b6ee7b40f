/**
 * The folder of one cache: `cache.json`, which says of what, `shards/` with the rows, `records/` with what else was found of the teacher
 * in passing. Several processes may work on it at once: whatever is written takes its final name when it is whole, under a lock that ends
 * with its process, so nothing is written twice and nothing has to be cleared up by hand.
 *
 * @module
 */
import { createHash } from "node:crypto";
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { type OpenFile, system } from "../../base/system.ts";
import { InputError } from "../../base/errors.ts";
import { isObject } from "../../base/json.ts";
import { exists, unwritable, writeTextAtomically } from "../../formats/files.ts";
import { CACHE_FORMAT, cacheKey, type CacheOrigin, cachePath } from "./origin.ts";
import { rowStorage } from "./payload.ts";
import { readShardIndex, SHARD_ENDING, type ShardEntry, type ShardRows, writeShard } from "./shard.ts";

const ABOUT = "cache.json";
const SHARDS = "shards";
const RECORDS = "records";
const CLAIMS = "claims";

/** How long to wait before looking again whether a lock is free, milliseconds. */
const LOCK_MS = 20;

/** One cache on disk. */
export class CacheFolder {
  readonly path: string;
  /** Hash under which it is found. */
  readonly key: string;
  readonly origin: CacheOrigin;
  /** Bytes of a row. */
  readonly rowBytes: number;
  readonly #entries = new Map<string, ShardEntry>();
  readonly #shards = new Set<string>();

  private constructor(path: string, key: string, origin: CacheOrigin) {
    [this.path, this.key, this.origin] = [path, key, origin];
    this.rowBytes = rowStorage(origin.format).bytes;
  }

  /**
   * Opens the cache of an origin in a folder of caches, and reads what shards there are. It need not be there: writing makes it.
   *
   * @throws {InputError} if what lies there is damaged, or is another cache
   */
  static async open(place: string, origin: CacheOrigin): Promise<CacheFolder> {
    const key = cacheKey(origin);
    const folder = new CacheFolder(cachePath(place, key), key, origin);
    if (await exists(folder.path)) {
      await folder.#check();
      await folder.refresh();
    }
    return folder;
  }

  async #check(): Promise<void> {
    const path = join(this.path, ABOUT);
    const refuse = (what: string, cause?: unknown): never => {
      throw new InputError(`is not the teacher's cache it should be: ${what}`, {
        where: this.path,
        hint: "Remove this folder, and the cache is made again; or name another teacher.cache.folder.",
        ...(cause === undefined ? {} : { cause }),
      });
    };
    let text: string;
    try {
      text = await system.readTextFile(path);
    } catch (error) {
      // The first to write here has not come to it yet.
      if (error instanceof system.errors.NotFound) return;
      return refuse(`${ABOUT} cannot be read`, error);
    }
    let about: unknown;
    try {
      about = JSON.parse(text);
    } catch (error) {
      return refuse(`${ABOUT} is no JSON`, error);
    }
    if (!isObject(about)) return refuse(`${ABOUT} is no object`);
    if (about.format !== CACHE_FORMAT) {
      refuse(`it has format ${about.format}; this version reads ${CACHE_FORMAT}`);
    }
    if (about.key !== this.key) {
      refuse(`it was made for another teacher or other settings: its hash is ${about.key}, not ${this.key}`);
    }
  }

  /** Reads the shards that have come since, of whatever process. @throws {InputError} on a damaged one, or one of another cache */
  async refresh(): Promise<void> {
    const names: string[] = [];
    try {
      for await (const { name } of system.readDir(join(this.path, SHARDS))) {
        if (name.endsWith(SHARD_ENDING) && !name.startsWith(".") && !this.#shards.has(name)) names.push(name);
      }
    } catch (error) {
      if (!(error instanceof system.errors.NotFound)) throw error;
    }
    // In the order of their names, so that of rows that are there twice every process takes the same.
    for (const name of names.sort()) {
      const entries = await readShardIndex(join(this.path, SHARDS), name, this.key, this.rowBytes);
      for (const [hash, entry] of entries) if (!this.#entries.has(hash)) this.#entries.set(hash, entry);
      this.#shards.add(name);
    }
  }

  /** Where the rows of a sample lie, by its hash; undefined where they are not there. */
  entry(hash: string): ShardEntry | undefined {
    return this.#entries.get(hash);
  }

  /** Samples whose rows are there. */
  get size(): number {
    return this.#entries.size;
  }

  /**
   * Writes the rows of samples as one shard; of samples that have come from elsewhere meanwhile, nothing.
   *
   * @throws {DiskFullError} and nothing of it is left behind
   */
  async add(samples: readonly ShardRows[]): Promise<void> {
    await this.#exclusively(async (alone) => {
      if (alone) await this.#removeUnfinished();
      await this.refresh();
      const absent = new Map(samples.map((sample) => [sample.hash, sample]));
      for (const hash of absent.keys()) if (this.#entries.has(hash)) absent.delete(hash);
      if (absent.size === 0) return;
      await writeShard(join(this.path, SHARDS), this.key, this.rowBytes, [...absent.values()]);
      await this.refresh();
    });
  }

  /** What is recorded of a kind under an identity; undefined where nothing is. @throws {InputError} if it is damaged */
  async record<T>(kind: string, id: string): Promise<T | undefined> {
    return (await this.#readRecord<T>(this.#recordPath(kind, id), id))?.value;
  }

  /** All that is recorded of a kind, in the order of its files' names. @throws {InputError} one is damaged */
  async records<T>(kind: string): Promise<T[]> {
    const folder = join(this.path, RECORDS);
    const names: string[] = [];
    try {
      for await (const { name } of system.readDir(folder)) {
        if (name.startsWith(`${kind}-`) && name.endsWith(".json")) names.push(name);
      }
    } catch (error) {
      if (!(error instanceof system.errors.NotFound)) throw error;
    }
    const found = await Promise.all(names.sort().map((name) => this.#readRecord<T>(join(folder, name))));
    return found.flatMap((record) => (record ? [record.value] : []));
  }

  /** A record of this cache, and where an identity is given of that. */
  async #readRecord<T>(path: string, id?: string): Promise<{ value: T } | undefined> {
    let text: string;
    try {
      text = await system.readTextFile(path);
    } catch (error) {
      if (error instanceof system.errors.NotFound) return undefined;
      throw error;
    }
    try {
      const found = JSON.parse(text) as { key: string; id: string; value: T };
      if (found.key === this.key && (id === undefined || found.id === id)) return found;
    } catch {
      // Told below.
    }
    throw new InputError(
      `is not ${id === undefined ? "a record" : `the record ${id}`} of the teacher's cache ${this.key}`,
      {
        where: path,
        hint: "Remove this file, and it is made again.",
      },
    );
  }

  /** Records something of a kind under an identity (a hash, hex). */
  async keep(kind: string, id: string, value: unknown): Promise<void> {
    const path = this.#recordPath(kind, id);
    await this.#exclusively(async () => {
      if (!await exists(path)) {
        await writeTextAtomically(path, JSON.stringify({ key: this.key, id, value }, null, 1) + "\n");
      }
    });
  }

  #recordPath(kind: string, id: string): string {
    return join(this.path, RECORDS, `${kind}-${id.slice(0, 16)}.json`);
  }

  /**
   * Claims a piece of work, so that no two processes do the same; a claim ends with its process.
   *
   * @returns what gives it back, or undefined while another has it
   */
  async claim(work: string): Promise<(() => Promise<void>) | undefined> {
    await this.#make();
    const path = join(this.path, CLAIMS, createHash("sha256").update(work).digest("hex").slice(0, 16));
    const file = await system.open(path, { read: true, write: true, create: true });
    if (!await taken(file)) {
      file.close();
      return undefined;
    }
    return async () => {
      file.close();
      await system.remove(path).catch(() => {});
    };
  }

  /** @param work is told whether it is alone: not every file system has locks, and then the same may be done twice, which harms nothing */
  async #exclusively(work: (alone: boolean) => Promise<void>): Promise<void> {
    await this.#make();
    using file = await system.open(join(this.path, "lock"), { read: true, write: true, create: true });
    let locked: boolean | undefined;
    while ((locked = await tryLock(file)) === false) {
      await new Promise((resolve) => setTimeout(resolve, LOCK_MS));
    }
    await this.#describe();
    await work(locked === true);
  }

  async #make(): Promise<void> {
    try {
      for (const name of [SHARDS, RECORDS, CLAIMS]) {
        await system.mkdir(join(this.path, name), { recursive: true });
      }
    } catch (error) {
      throw unwritable(this.path, error);
    }
  }

  async #describe(): Promise<void> {
    const path = join(this.path, ABOUT);
    if (await exists(path)) return await this.#check();
    const about = { format: CACHE_FORMAT, key: this.key, origin: this.origin };
    await writeTextAtomically(path, JSON.stringify(about, null, 1) + "\n");
  }

  /** Removes what processes that were killed left in the middle of a shard. Whoever has the lock writes alone. */
  async #removeUnfinished(): Promise<void> {
    const folder = join(this.path, SHARDS);
    for await (const { name } of system.readDir(folder)) {
      if (name.startsWith(".") && name.endsWith(".tmp")) await system.remove(join(folder, name));
    }
  }
}

/** Whether a claim could be had, also where the file system knows no locks. */
async function taken(file: OpenFile): Promise<boolean> {
  return await tryLock(file) !== false;
}

/** Undefined where the file system knows no locks. */
async function tryLock(file: OpenFile): Promise<boolean | undefined> {
  try {
    return await file.tryLock(true);
  } catch {
    return undefined;
  }
}
