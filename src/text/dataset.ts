/**
 * Datasets: files of rows, one sample each, in one of four shapes that the field's tools share:
 * `{"text"}`, `{"prompt", "completion"}`, `{"messages": [{"role", "content"}, ...]}`,
 * `{"prompt", "chosen", "rejected"}`. A file may mix them, since each row says which it is;
 * a row that fits two is refused. A row may say who wrote it, `"source": "student"`, which of several teachers is to teach it,
 * `"teacher": "math"`, and what only a teacher reads, `"privileged": "The answer is 8."`. Files are JSON Lines, JSON, CSV or Parquet, and their
 * columns may have other names.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { InputError } from "../base/errors.ts";
import { canonicalJson } from "../base/json.ts";
import { type ColumnNames, Columns } from "./read/columns.ts";
import { jsonLines } from "./read/json_lines.ts";
import { openDataFile } from "./read/open.ts";
import type { FileRecord, RecordBatches } from "./read/records.ts";
import { DatasetError, type DatasetRow, rowOf, RowProblem, type RowSource } from "./read/rows.ts";

export { type ChatMessage, DatasetError, type DatasetRow, type RowSource } from "./read/rows.ts";
export type { ColumnNames } from "./read/columns.ts";

/** How rows are read. */
export interface ReadOptions {
  /** Longest line in bytes (default 16 MiB). */
  maxLineBytes?: number;
  /** Errors collected before reading stops (default 10). */
  maxErrors?: number;
  /** From which columns the parts of a row are read; those of their own names when absent. */
  columns?: ColumnNames;
}

/**
 * Reads rows from JSON Lines. Good rows are yielded as they come; faulty lines are collected and thrown together at the end, or
 * when there are `maxErrors` of them.
 *
 * @param source the bytes, in chunks of any size; a UTF-8 byte order mark at the start is allowed
 * @param file how to name the file in errors
 * @throws {DatasetError} faulty lines, after the last good row
 */
export function readRows(
  source: AsyncIterable<Uint8Array>,
  file: string,
  options: ReadOptions = {},
): AsyncGenerator<DatasetRow> {
  const { maxLineBytes } = options;
  return rowsOf(jsonLines(source, file, maxLineBytes === undefined ? {} : { maxLineBytes }), file, options);
}

/** {@linkcode readRows} of the records of any file. */
export async function* rowsOf(
  batches: RecordBatches,
  file: string,
  { maxErrors = MOST_ERRORS, columns: names }: ReadOptions = {},
): AsyncGenerator<DatasetRow> {
  const read = rowReader(file, names);
  const problems: { source: RowSource; message: string }[] = [];
  for await (const batch of batches) {
    for (const record of batch) {
      const row = read(record);
      if (typeof row !== "string") {
        yield row;
        continue;
      }
      problems.push({ source: { file: record.file ?? file, line: record.line }, message: row });
      if (problems.length >= maxErrors) throw new DatasetError(file, problems, true);
    }
  }
  if (problems.length > 0) throw new DatasetError(file, problems, false);
}

/** Faulty rows that are named. */
export const MOST_ERRORS = 10;

/** Makes rows of records, or says what is wrong with them. */
export function rowReader(
  file: string,
  names: ColumnNames | undefined,
): (record: FileRecord) => DatasetRow | string {
  const columns = names && new Columns(names);
  return (record) => {
    if ("problem" in record) return record.problem;
    try {
      return rowOf(columns ? columns.read(record.value) : record.value, {
        file: record.file ?? file,
        line: record.line,
      });
    } catch (error) {
      if (error instanceof RowProblem) return error.message;
      throw error;
    }
  };
}

/**
 * Reads a whole dataset file.
 *
 * @throws {InputError} no such file, one that is not what its name says, a column that is not there, or no rows in it
 * @throws {DatasetError} faulty rows
 */
export async function openDataset(path: string, options: ReadOptions = {}): Promise<DatasetRow[]> {
  const { columns, maxLineBytes } = options;
  const file = await openDataFile(path);
  const named = columns && new Columns(columns);
  const batches = file.records({
    ...(named ? { wanted: named.wanted, nested: named.nested } : {}),
    ...(maxLineBytes === undefined ? {} : { maxLineBytes }),
  });
  const rows: DatasetRow[] = [];
  for await (const row of rowsOf(batches, path, options)) rows.push(row);
  if (rows.length === 0) {
    throw new InputError("the dataset is empty", {
      where: path,
      hint: 'Write one JSON object a line, e.g. {"text": "..."}.',
    });
  }
  return rows;
}

/** SHA-256 (hex) of what a student reads of a row, without its id, place and origin: equal content, equal hash. */
export function contentHash(row: DatasetRow): string {
  return createHash("sha256").update(contentJson(row)).digest("hex");
}

/** Canonical JSON of what a row says; that of texts is put together here, which takes a third of the time. */
function contentJson(row: DatasetRow): string {
  if (row.shape === "text") return `{"shape":"text","text":${JSON.stringify(row.text)}}`;
  if (row.shape === "prompt") {
    const [prompt, completion] = [row.prompt, row.completion].map((text) => JSON.stringify(text));
    return `{"completion":${completion},"prompt":${prompt},"shape":"prompt"}`;
  }
  const { source: _source, id: _id, origin: _origin, privileged: _privileged, ...content } = row;
  return canonicalJson(content);
}

/** Where the hash of a row lies among all that there are, from 0 to 1: those below the share that is held out are. */
export function hashPlace(hash: string): number {
  // The first 52 bits.
  return parseInt(hash.slice(0, 13), 16) / 2 ** 52;
}

/**
 * Splits rows into training and held-out rows by the hash of their content: the same row always falls on the same side whatever the
 * order or the rest of the file, and copies of a row stay together. At least one row falls on either side.
 *
 * @param fraction expected share of held-out rows
 * @throws {InputError} fewer than two different rows
 */
export function splitHeldOut(
  rows: readonly DatasetRow[],
  fraction = 0.05,
): { train: DatasetRow[]; heldOut: DatasetRow[] } {
  const hashes = rows.map(contentHash);
  const places = hashes.map(hashPlace);
  const distinct = [...new Set(places)].sort((a, b) => a - b);
  if (distinct.length < 2) {
    throw new InputError("held-out rows cannot be split off: the dataset has fewer than two different rows", {
      where: rows[0]?.source.file,
      hint: "Add rows, or name a file as data.heldOut.",
    });
  }
  // Rows below the threshold are held out: never none, never all.
  const wanted = fraction > distinct[0] ? fraction : distinct[1];
  const threshold = Math.min(wanted, distinct[distinct.length - 1]);
  const train: DatasetRow[] = [];
  const heldOut: DatasetRow[] = [];
  rows.forEach((row, i) => (places[i] < threshold ? heldOut : train).push(row));
  return { train, heldOut };
}

/** How many rows of `heldOut` also stand in `train`: figures on them measure memory, not learning. */
export function countShared(train: readonly DatasetRow[], heldOut: readonly DatasetRow[]): number {
  const seen = new Set(train.map(contentHash));
  return heldOut.filter((row) => seen.has(contentHash(row))).length;
}

/** Finds rows that say the same as earlier ones, by the hash of their content. */
export class Duplicates {
  readonly #seen: Set<string>;

  /** @param earlier Rows that count as seen */
  constructor(earlier: readonly DatasetRow[] = []) {
    this.#seen = new Set(earlier.map(contentHash));
  }

  /** Whether nothing that was asked for before says the same. */
  isNew(row: DatasetRow): boolean {
    const size = this.#seen.size;
    return this.#seen.add(contentHash(row)).size > size;
  }
}
