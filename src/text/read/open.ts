/**
 * Opens the file of a dataset, whatever its format.
 *
 * @module
 */
import { type OpenFile, system } from "../../base/system.ts";
import { InputError } from "../../base/errors.ts";
import type { CsvOptions } from "./csv.ts";
import { datasetFiles } from "./files.ts";
import { type FileFormat, fileFormat, FORMATS } from "./format.ts";
import { jsonFile } from "./json_file.ts";
import { jsonLines, type JsonLinesOptions, MAX_LINE_BYTES } from "./json_lines.ts";
import type { ParquetOptions } from "./parquet.ts";
import { unpacked } from "./unpack.ts";
import type { FileRecord, RecordBatches } from "./records.ts";

/** What is wanted of a file. */
export interface RecordOptions extends JsonLinesOptions {
  /** Columns that are asked for by name. */
  readonly wanted?: readonly string[];
  /** Those of them that may hold lists of objects. */
  readonly nested?: ReadonlySet<string>;
  /** Told how many bytes of the file, as it lies on the disk, have been read. */
  readonly onRead?: (bytes: number) => void;
}

/** A file that is open, or several that are read one after another. */
export interface OpenedFile extends FileFormat {
  readonly path: string;
  /** As it lies on the disk. */
  readonly bytes: number;
  /** Whether it is several files, each of a format of its own. */
  readonly isSeveral: boolean;
  /** Reads it from its beginning. */
  records(options?: RecordOptions): RecordBatches;
}

/** Bytes that are read at once. */
const CHUNK = 1 << 20;

/**
 * Opens a file, or all that a `*` in its name stands for.
 *
 * @throws {InputError} there is none, it may not be read, or it is not what its name says
 */
export async function openDataFile(path: string): Promise<OpenedFile> {
  const files = await Promise.all((await datasetFiles(path)).map(openOne));
  const [first] = files as [OpenedFile, ...OpenedFile[]];
  if (files.length === 1) return first;
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  return {
    ...first,
    path,
    bytes,
    isSeveral: true,
    records: (options = {}) => oneAfterAnother(files, options),
  };
}

async function* oneAfterAnother(
  files: readonly OpenedFile[],
  options: RecordOptions,
): AsyncGenerator<readonly FileRecord[]> {
  let [before, lines] = [0, 0];
  for (const { path, bytes, records } of files) {
    let own = 0;
    const batches = records({
      ...options,
      onRead: (count) => options.onRead?.(before + count),
      onLines: (count) => options.onLines?.(lines + (own = count)),
    });
    for await (const batch of batches) yield batch.map((record) => ({ ...record, file: path }));
    before += bytes;
    lines += own;
    options.onRead?.(before);
  }
}

async function openOne(path: string): Promise<OpenedFile> {
  const beginning = new Uint8Array(4);
  let bytes: number;
  let read: number;
  {
    using file = await opened(path);
    const { isDirectory, size } = await file.stat();
    if (isDirectory) {
      throw new InputError("this is a folder; name a file in it", {
        where: path,
        hint: `Datasets are ${FORMATS}. A * in a file's name stands for several: ${path}/*.parquet`,
      });
    }
    bytes = size;
    read = await file.read(beginning) ?? 0;
  }
  const format = fileFormat(path, beginning.subarray(0, read));
  const records = (options: RecordOptions = {}) => recordsOf(path, bytes, format, options);
  return { path, bytes, ...format, isSeveral: false, records };
}

async function opened(path: string): Promise<OpenFile> {
  try {
    return await system.open(path, { read: true });
  } catch (cause) {
    const reason = cause instanceof system.errors.NotFound
      ? "there is no such file"
      : cause instanceof system.errors.PermissionDenied
      ? "may not be read: permission is denied"
      : `cannot be read: ${(cause as Error).message}`;
    throw new InputError(reason, { where: path, cause, hint: `Name a file of ${FORMATS}.` });
  }
}

function recordsOf(
  path: string,
  bytes: number,
  { format, compression }: FileFormat,
  options: RecordOptions,
): RecordBatches {
  const { maxLineBytes = MAX_LINE_BYTES, wanted, nested, onRead } = options;
  const named = wanted ? { wanted } : {};
  if (format === "parquet") return parquetFile(path, bytes, { ...named, ...(nested ? { nested } : {}) });
  const chunks = onRead ? counted(chunksOf(path), onRead) : chunksOf(path);
  const source = compression ? unpacked(chunks, compression, path) : chunks;
  switch (format) {
    case "jsonl":
      return jsonLines(source, path, options);
    case "json":
      return jsonFile(source, path, options);
    default:
      return table(source, path, {
        ...{ delimiter: format === "csv" ? "," : "\t", maxRecord: maxLineBytes },
        ...named,
      });
  }
}

/** Its library is loaded by who reads one alone. */
async function* table(
  source: AsyncIterable<Uint8Array>,
  path: string,
  options: CsvOptions,
): AsyncGenerator<readonly FileRecord[]> {
  const { csvRecords } = await import("./csv.ts");
  yield* csvRecords(source, path, options);
}

/** The bytes of a file; each chunk is gone when the next is asked for. */
export async function* chunksOf(path: string): AsyncGenerator<Uint8Array> {
  using file = await opened(path);
  const chunk = new Uint8Array(CHUNK);
  for (let count; (count = await file.read(chunk)) !== null;) yield chunk.subarray(0, count);
}

async function* counted(
  chunks: AsyncIterable<Uint8Array>,
  onRead: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
  let bytes = 0;
  for await (const chunk of chunks) {
    onRead(bytes += chunk.length);
    yield chunk;
  }
}

async function* parquetFile(
  path: string,
  byteLength: number,
  options: ParquetOptions,
): AsyncGenerator<readonly FileRecord[]> {
  const { parquetRecords } = await import("./parquet.ts");
  using file = await opened(path);
  const slice = async (start: number, end: number = byteLength) => {
    const bytes = new Uint8Array(Math.max(0, end - start));
    await file.seek(start, system.SeekMode.Start);
    for (let at = 0; at < bytes.length;) {
      const count = await file.read(bytes.subarray(at));
      if (count === null) throw new Error("the file is shorter than it was");
      at += count;
    }
    return bytes.buffer;
  };
  // One after another: a seek and a read are two steps.
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = (start: number, end?: number) => {
    const next = last.then(() => slice(start, end));
    last = next.catch(() => {});
    return next;
  };
  yield* parquetRecords({ byteLength, slice: inTurn }, path, options);
}
