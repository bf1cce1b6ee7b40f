/**
 * A shard of a cache: a safetensors file with the rows of whole samples. It is named by the hash of its index (whose samples, how many
 * rows of each, and the hash of each sample's rows), so the name vouches for the index, and the index for every byte of the rows.
 *
 * | tensor    | type | shape         |                                                             |
 * |-----------|------|---------------|-------------------------------------------------------------|
 * | `offsets` | F64  | [S + 1]       | number of the first row of each sample, then of all rows    |
 * | `samples` | U8   | [S, 32]       | hash of each sample's tokens and of its positions with a row |
 * | `digests` | U8   | [S, 32]       | SHA-256 of each sample's rows                               |
 * | `rows`    | U8   | [rows, bytes] | the rows, in the order of the samples                       |
 *
 * @module
 */
import { createHash } from "node:crypto";
// @ts-types="../../../types/std_path.d.ts"
import { basename, join } from "@std/path";
import { InputError } from "../../base/errors.ts";
import { openFile } from "../../formats/files.ts";
import { SafetensorsFile } from "../../formats/safetensors/safetensors.ts";
import { writeSafetensors } from "../../formats/safetensors/write.ts";

/** Ending of the name of every shard. */
export const SHARD_ENDING = ".safetensors";

const ABOUT = "limbeck teacher shard 1";
const HASH_BYTES = 32;

/** The rows of one sample, on their way to the disk. */
export interface ShardRows {
  /** Hash of the sample, hex. */
  readonly hash: string;
  readonly rows: Uint8Array;
}

/** Where the rows of a sample lie. */
export interface ShardEntry {
  readonly shard: string;
  /** First byte in the file. */
  readonly begin: number;
  readonly bytes: number;
  /** SHA-256 of the rows, hex. */
  readonly digest: string;
}

/** SHA-256 of rows, hex. */
export function rowsDigest(rows: Uint8Array): string {
  return createHash("sha256").update(rows).digest("hex");
}

/**
 * Writes a shard, whole or not at all.
 *
 * @param key of the cache
 * @param rowBytes Bytes of a row
 * @returns its name
 */
export async function writeShard(
  folder: string,
  key: string,
  rowBytes: number,
  samples: readonly ShardRows[],
): Promise<string> {
  const offsets = new Float64Array(samples.length + 1);
  samples.forEach(({ rows }, i) => offsets[i + 1] = offsets[i]! + rows.length / rowBytes);
  const hashes = hashBytes(samples.map(({ hash }) => hash));
  const digests = hashBytes(samples.map(({ rows }) => rowsDigest(rows)));
  const name = indexName(key, offsets, hashes, digests);
  const count = samples.length;
  async function* pieces() {
    for (const { rows } of samples) yield await Promise.resolve(rows);
  }
  await writeSafetensors(
    join(folder, name),
    [
      { name: "offsets", dtype: "F64", shape: [count + 1] },
      { name: "samples", dtype: "U8", shape: [count, HASH_BYTES] },
      { name: "digests", dtype: "U8", shape: [count, HASH_BYTES] },
      { name: "rows", dtype: "U8", shape: [offsets.at(-1)!, rowBytes] },
    ],
    ({ name }) => ({ offsets, samples: hashes, digests }[name] ?? pieces()),
    { format: ABOUT, key },
  );
  return name;
}

/**
 * Reads the index of a shard and checks it against its name.
 *
 * @returns by the hash of the sample
 * @throws {InputError} if it is damaged, or of another cache
 */
export async function readShardIndex(
  folder: string,
  name: string,
  key: string,
  rowBytes: number,
): Promise<Map<string, ShardEntry>> {
  const path = join(folder, name);
  const source = await openFile(path);
  let file: SafetensorsFile;
  try {
    file = await SafetensorsFile.open(source);
  } catch (error) {
    source.close?.();
    throw damaged(path, (error as Error).message.replace(`${path}: `, ""), error);
  }
  try {
    const { metadata, tensors } = file;
    if (metadata.get("format") !== ABOUT) throw damaged(path, `it is no shard: it does not say "${ABOUT}"`);
    if (metadata.get("key") !== key) {
      throw damaged(path, `it belongs to the cache ${metadata.get("key")}, not to ${key}`);
    }
    const [offsets, samples, digests] = [
      (await file.readArray("offsets")).data as Float64Array,
      await file.readBytes("samples"),
      await file.readBytes("digests"),
    ];
    const found = indexName(key, offsets, samples, digests);
    if (found !== name) {
      throw damaged(path, `its index has the hash ${stem(found)}, not ${stem(name)}, which is its name`);
    }
    const rows = tensors.get("rows");
    if (String(rows?.shape) !== String([offsets.at(-1)!, rowBytes])) {
      throw damaged(path, `it does not have rows of shape [${offsets.at(-1)}, ${rowBytes}]`);
    }
    const entries = new Map<string, ShardEntry>();
    for (let i = 0; i + 1 < offsets.length; i++) {
      const bytes = (offsets[i + 1]! - offsets[i]!) * rowBytes;
      const begin = rows!.begin + offsets[i]! * rowBytes;
      entries.set(hexOf(samples, i), { shard: path, begin, bytes, digest: hexOf(digests, i) });
    }
    return entries;
  } finally {
    file.close();
  }
}

/** What is said of a shard that cannot be used. */
export function damaged(path: string, what: string, cause?: unknown): InputError {
  return new InputError(`is not a part of the teacher's cache as it was written: ${what}`, {
    where: path,
    hint: "Remove this file, and what it held is made again.",
    ...(cause === undefined ? {} : { cause }),
  });
}

function indexName(key: string, offsets: Float64Array, samples: Uint8Array, digests: Uint8Array): string {
  const hash = createHash("sha256").update(key).update(offsets).update(samples).update(digests);
  return hash.digest("hex").slice(0, 2 * 16) + SHARD_ENDING;
}

function stem(name: string): string {
  return basename(name, SHARD_ENDING);
}

function hashBytes(hashes: readonly string[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(hashes.length * HASH_BYTES);
  hashes.forEach((hash, i) => bytes.set(Uint8Array.fromHex(hash), i * HASH_BYTES));
  return bytes;
}

function hexOf(bytes: Uint8Array, i: number): string {
  return bytes.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES).toHex();
}
