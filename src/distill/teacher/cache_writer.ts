/**
 * Filling a cache, whatever the rows come from: samples in any order, as they come, by any number of processes. What has been written
 * stays when its process is killed.
 *
 * @module
 */
import { LimbeckError } from "../../base/errors.ts";
import type { CacheFolder } from "./cache_folder.ts";
import type { SampleKey } from "./origin.ts";
import type { ShardRows } from "./shard.ts";

/** Bytes of rows that wait in memory for the next shard, at the most. */
const SHARD_BYTES = 16 * 2 ** 20;

/** Writes rows into a cache. */
export class CacheWriter {
  readonly folder: CacheFolder;
  readonly #most: number;
  readonly #waiting = new Map<string, ShardRows>();
  #bytes = 0;
  /** The shard before, written or not. */
  #last: Promise<void> = Promise.resolve();

  /** @param shardBytes A shard is written when so many bytes of rows wait */
  constructor(folder: CacheFolder, shardBytes: number = SHARD_BYTES) {
    [this.folder, this.#most] = [folder, shardBytes];
  }

  /** Whether the rows of a sample are there, or wait to be written. */
  has({ hash }: Pick<SampleKey, "hash">): boolean {
    return this.#waiting.has(hash) || this.folder.entry(hash) !== undefined;
  }

  /**
   * Takes the rows of a sample: one for each of its positions, in their order. Nothing happens where they are there.
   *
   * @throws {DiskFullError} what waits goes on waiting, and {@linkcode flush} may be tried again
   */
  async put(key: SampleKey, rows: Uint8Array): Promise<void> {
    const { rowBytes } = this.folder;
    if (rows.length !== key.positions.length * rowBytes) {
      throw new LimbeckError(
        `${rows.length} bytes came for ${key.positions.length} rows of ${rowBytes} bytes; this is a bug`,
      );
    }
    if (this.has(key)) return;
    this.#waiting.set(key.hash, { hash: key.hash, rows });
    this.#bytes += rows.length;
    if (this.#bytes >= this.#most) await this.flush();
  }

  /** Writes what waits as a shard. More may come meanwhile, and waits for the next. */
  flush(): Promise<void> {
    const written = this.#last.then(() => this.#write());
    this.#last = written.catch(() => {});
    return written;
  }

  async #write(): Promise<void> {
    const samples = [...this.#waiting.values()];
    if (samples.length === 0) return;
    await this.folder.add(samples);
    for (const { hash, rows } of samples) {
      this.#waiting.delete(hash);
      this.#bytes -= rows.length;
    }
  }
}
