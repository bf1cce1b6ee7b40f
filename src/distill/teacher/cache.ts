/**
 * An open cache: the rows of a run's samples, checked, and what else is known of the teacher that is no longer there.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { openFile } from "../../formats/files.ts";
import type { ByteSource } from "../../formats/source.ts";
import type { EncodedSample } from "../../text/encode.ts";
import type { PackedBatch } from "../../text/packing.ts";
import type { Evaluation } from "../objective/monitors.ts";
import { countedPositions, type MarkedBatch } from "../objective/token_masks.ts";
import type { TargetFeed, TargetSource } from "../program/fed/teacher_rows.ts";
import type { CacheFolder } from "./cache_folder.ts";
import type { SampleKey } from "./origin.ts";
import { rowStorage } from "./payload.ts";
import type { RowFeed, RowStorage } from "./row_storage.ts";
import { damaged, rowsDigest, type ShardEntry } from "./shard.ts";

/** Cross-entropy on a held-out set, in nats a token, and its supervised tokens. */
export interface MeasuredSet {
  readonly loss: number;
  readonly tokens: number;
}

/** Texts that the teacher wrote, with a hash of the settings they were written with. */
export interface WrittenTexts {
  readonly settings: string;
  readonly samples: readonly { readonly prompt: string; readonly text: string }[];
}

/** What the teacher itself is found to be in the pass that makes the cache. */
export interface TeacherFindings {
  /** Of each held-out set, in their order. */
  readonly heldOut: readonly MeasuredSet[];
  /** Null where there are none with the run's settings. */
  readonly texts: WrittenTexts | null;
}

/** What a cache says of held-out set number `i`. */
export function cachedEvaluation({ heldOut }: TeacherFindings, i: number): Evaluation {
  const { loss, tokens } = heldOut[i]!;
  return { losses: { "cross-entropy": loss }, tokens };
}

/** What {@linkcode TeacherCache} is made of. */
export interface CacheParts {
  readonly path: string;
  readonly storage: RowStorage;
  readonly findings: TeacherFindings;
  readonly identity: string;
  /** The rows of a sample, one after another. */
  read(sample: EncodedSample): Promise<Uint8Array<ArrayBuffer>>;
  close(): void;
}

/** The rows of a run's samples. */
export class TeacherCache implements TargetSource {
  readonly path: string;
  readonly findings: TeacherFindings;
  /** Hash (SHA-256, hex) of the rows of all samples in their order, wherever they lie. */
  readonly identity: string;
  readonly #parts: CacheParts;

  constructor(parts: CacheParts) {
    this.#parts = parts;
    ({ path: this.path, findings: this.findings, identity: this.identity } = parts);
  }

  feed(positions: number): TargetFeed {
    const feed = this.#parts.storage.feed(positions);
    return { inputs: feed.inputs, fill: (batch, marked) => this.#fill(batch, marked, feed) };
  }

  async #fill({ members }: PackedBatch, marked: MarkedBatch, feed: RowFeed): Promise<void> {
    const { bytes } = this.#parts.storage;
    let start = 0;
    for (const sample of members) {
      const end = start + sample.ids.length;
      const positions = countedPositions(marked, start, end);
      if (positions.length > 0) {
        const { buffer } = await this.#parts.read(sample);
        positions.forEach((t, i) => feed.read(buffer, i * bytes, t));
      }
      start = end;
    }
  }

  close(): void {
    this.#parts.close();
  }
}

/**
 * Opens the rows of samples, all of which are there, and checks every byte of them.
 *
 * @param keys of the samples, in their order
 * @param onSample Called after each that was checked
 * @throws {InputError} if a shard is damaged
 */
export async function openCache(
  folder: CacheFolder,
  keys: ReadonlyMap<EncodedSample, SampleKey>,
  findings: TeacherFindings,
  onSample?: () => void,
): Promise<TeacherCache> {
  const files = new ShardFiles();
  const entries = new Map<EncodedSample, ShardEntry>();
  const hash = createHash("sha256");
  try {
    for (const [sample, { hash: name, positions }] of keys) {
      if (positions.length === 0) continue;
      const entry = folder.entry(name)!;
      const rows = await files.read(entry);
      if (rowsDigest(rows) !== entry.digest) {
        throw damaged(
          entry.shard,
          `the rows of ${sampleName(sample)} are not those that its index describes`,
        );
      }
      hash.update(rows);
      entries.set(sample, entry);
      onSample?.();
    }
  } catch (error) {
    files.close();
    throw error;
  }
  return new TeacherCache({
    ...{ path: folder.path, findings, identity: hash.digest("hex") },
    storage: rowStorage(folder.origin.format),
    read: (sample) => files.read(entries.get(sample)!),
    close: () => files.close(),
  });
}

function sampleName({ source: { file, line } }: EncodedSample): string {
  return `the sample of ${file}:${line}`;
}

/** Shards that are open at once, at the most: a process may not have thousands. */
const MOST_OPEN = 32;

/** Shards, opened when they are read. */
class ShardFiles {
  readonly #open = new Map<string, Promise<ByteSource>>();

  async read({ shard, begin, bytes }: ShardEntry): Promise<Uint8Array<ArrayBuffer>> {
    return await (await this.#file(shard)).read(begin, bytes);
  }

  /** The one that was used last stands last. */
  #file(path: string): Promise<ByteSource> {
    const file = this.#open.get(path) ?? openFile(path);
    this.#open.delete(path);
    if (this.#open.size >= MOST_OPEN) {
      const [oldest] = this.#open.keys();
      this.#close(oldest!);
    }
    this.#open.set(path, file);
    return file;
  }

  #close(path: string): void {
    const file = this.#open.get(path)!;
    this.#open.delete(path);
    file.then((source) => source.close?.(), () => {});
  }

  close(): void {
    for (const path of [...this.#open.keys()]) this.#close(path);
  }
}
