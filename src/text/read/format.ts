/**
 * In which format a dataset is: what its name says, and whether its first bytes agree.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { Compression } from "./unpack.ts";

/** How records are written. */
export type DataFormat = "jsonl" | "json" | "csv" | "tsv" | "parquet";

/** How a file is to be read. */
export interface FileFormat {
  readonly format: DataFormat;
  readonly compression?: Compression;
}

const ENDINGS: Readonly<Record<string, DataFormat>> = {
  jsonl: "jsonl",
  ndjson: "jsonl",
  jsonlines: "jsonl",
  json: "json",
  csv: "csv",
  tsv: "tsv",
  tab: "tsv",
  parquet: "parquet",
  pq: "parquet",
};
const COMPRESSED: Readonly<Record<string, Compression>> = {
  gz: "gzip",
  gzip: "gzip",
  zst: "zstd",
  zstd: "zstd",
};

/** The formats in words, for errors and help. */
export const FORMATS =
  "JSON Lines (.jsonl), JSON (.json), CSV (.csv, .tsv) or Parquet (.parquet); the first three also with .gz or .zst";

/** Whether a file's name says that it is a dataset. */
export function isDatasetName(name: string): boolean {
  return byName(name) !== undefined;
}

/**
 * The format of a file. One whose name says nothing is JSON Lines, unless its bytes say otherwise.
 *
 * @param beginning Its first bytes: 4 are enough
 * @throws {InputError} name and bytes contradict each other, or it is an archive
 */
export function fileFormat(path: string, beginning: Uint8Array): FileFormat {
  const named = byName(path);
  const found = byBytes(beginning);
  if (found === "zip") {
    throw new InputError("is a zip archive", { where: path, hint: `Unpack it. Datasets are ${FORMATS}.` });
  }
  if (!named) {
    if (found === "parquet") return { format: "parquet" };
    return { format: "jsonl", ...(found ? { compression: found } : {}) };
  }
  if (beginning.length === 0) return named;
  const expected = named.compression ?? (named.format === "parquet" ? "parquet" : undefined);
  if (expected === found) return named;
  throw new InputError(
    found === undefined
      ? `is named as ${words(expected)}, but does not begin like it`
      : `is ${words(found)}, but is not named so`,
    {
      where: path,
      hint: found === undefined
        ? "Name it by what it is, or fetch it again: it may be a page with an error, or a pointer of Git LFS."
        : `Rename it, such as ${path.split(/[\\/]/).at(-1)}.${ENDING[found]}.`,
    },
  );
}

const ENDING = { gzip: "gz", zstd: "zst", parquet: "parquet" } as const;

function words(format: Compression | "parquet" | undefined): string {
  if (format === undefined) return "text";
  return format === "parquet" ? "Parquet" : `compressed with ${format}`;
}

function byName(path: string): FileFormat | undefined {
  const endings = path.split(/[\\/]/).at(-1)!.toLowerCase().split(".").slice(1);
  const last = endings.at(-1) ?? "";
  if (!Object.hasOwn(COMPRESSED, last)) {
    return Object.hasOwn(ENDINGS, last) ? { format: ENDINGS[last]! } : undefined;
  }
  const inner = endings.at(-2) ?? "";
  const format = Object.hasOwn(ENDINGS, inner) ? ENDINGS[inner]! : "jsonl";
  return format === "parquet" ? undefined : { format, compression: COMPRESSED[last]! };
}

function byBytes(bytes: Uint8Array): Compression | "parquet" | "zip" | undefined {
  const begins = (...magic: number[]) => magic.every((byte, i) => bytes[i] === byte);
  if (begins(0x1f, 0x8b)) return "gzip";
  if (begins(0x28, 0xb5, 0x2f, 0xfd)) return "zstd";
  if (begins(0x50, 0x41, 0x52, 0x31)) return "parquet";
  return begins(0x50, 0x4b, 0x03, 0x04) ? "zip" : undefined;
}
