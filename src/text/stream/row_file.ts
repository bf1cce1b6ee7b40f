/**
 * A file of JSON Lines whose rows stay on the disk: where each of them begins is kept, and a row is read when it is wanted.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { type OpenFile, system } from "../../base/system.ts";
import { InputError } from "../../base/errors.ts";
import {
  contentHash,
  DatasetError,
  type DatasetRow,
  hashPlace,
  MOST_ERRORS,
  rowReader,
  type RowSource,
} from "../dataset.ts";
import { type ColumnNames, Columns } from "../read/columns.ts";
import { jsonRecord, MAX_LINE_BYTES } from "../read/json_lines.ts";
import { lineBlocks } from "../read/lines.ts";
import { chunksOf, openDataFile, type OpenedFile } from "../read/open.ts";
import { NumberList, type NumberSet } from "./number_list.ts";

/** How the rows of a file are found. */
export interface RowFileOptions {
  readonly columns?: ColumnNames;
  /** Most rows used; all when absent. */
  readonly limit?: number;
  /** Hashes of rows that are left out when they come once more; those of the file are added. */
  readonly seen?: NumberSet;
  /** Hashes of rows that are held out elsewhere: they are counted. */
  readonly heldOut?: NumberSet;
  /** Expected share of rows that are held out, chosen by hash; none when absent. */
  readonly heldOutShare?: (rows: number) => number;
  /** A folder for what is read from other formats, written there as JSON Lines; the system's when absent. */
  readonly scratch?: string;
  /** Called now and then with the bytes that have been read. */
  readonly onProgress?: (bytes: number, of: number) => void;
}

/** What the rows of a file are found to be. */
interface Found {
  readonly offsets: NumberList;
  readonly lines: NumberList;
  readonly identity: string;
  readonly origins: ReadonlySet<string>;
  readonly duplicates: number;
  readonly shared: number;
  /** Rows that are held out, as numbers among all of them. */
  readonly heldOut: readonly number[];
}

/** 52 bits of the hash of a row's content, as a whole number. */
export function shortHash(row: DatasetRow): number {
  return parseInt(contentHash(row).slice(0, 13), 16);
}

/** Rows on the disk, at 12 bytes of memory each. */
export class RowFile {
  /** How many there are; held-out ones are not among them. */
  readonly count: number;
  /** Hash (SHA-256, hex) of what all of them say, in their order. */
  readonly identity: string;
  /** Who wrote rows of it. */
  readonly origins: ReadonlySet<string>;
  /** Rows left out as copies of others. */
  readonly duplicates: number;
  /** Rows that are also held out elsewhere. */
  readonly shared: number;
  /** Rows that are held out. */
  readonly heldOut: readonly DatasetRow[];
  readonly #path: string;
  readonly #name: string;
  readonly #file: OpenFile;
  readonly #found: Found;
  readonly #removed: boolean;
  readonly #read: ReturnType<typeof rowReader>;
  #buffer = new Uint8Array(1 << 14);

  private constructor(
    { path, name, removed }: { path: string; name: string; removed: boolean },
    found: Found,
    columns: ColumnNames | undefined,
  ) {
    [this.#path, this.#name, this.#found, this.#removed] = [path, name, found, removed];
    this.#file = system.openSync(path, { read: true });
    this.#read = rowReader(name, columns);
    this.count = found.offsets.length - found.heldOut.length;
    ({ identity: this.identity, origins: this.origins, duplicates: this.duplicates, shared: this.shared } =
      found);
    this.heldOut = found.heldOut.map((row) => this.#rowAt(row));
  }

  /**
   * Reads a file once, checks each row, and keeps where it begins.
   *
   * @throws {InputError} what opening it throws; fewer rows than are needed
   * @throws {DatasetError} the first faulty rows
   */
  static async open(path: string, options: RowFileOptions = {}): Promise<RowFile> {
    const file = await openDataFile(path);
    if (file.format === "jsonl" && !file.compression && !file.isSeveral) {
      const found = await new Finder(file, options).find(linesOf(file, options.onProgress));
      return new RowFile({ path, name: path, removed: false }, found, options.columns);
    }
    const scratch = await scratchFile(path, options.scratch);
    try {
      const found = await new Finder(file, options).find(rewritten(file, scratch, options));
      return new RowFile({ path: scratch, name: path, removed: true }, found, undefined);
    } catch (error) {
      await system.remove(scratch).catch(() => {});
      throw error;
    }
  }

  /** Row number `index`, from 0, of those that are not held out. */
  row(index: number): DatasetRow {
    return this.#rowAt(this.#place(index));
  }

  /** The number among all rows: as many are before it as are held out with smaller numbers. */
  #place(index: number): number {
    const { heldOut } = this.#found;
    let [low, high] = [0, heldOut.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (heldOut[middle]! - middle <= index) low = middle + 1;
      else high = middle;
    }
    return index + low;
  }

  #rowAt(place: number): DatasetRow {
    const line = this.#found.lines.at(place);
    const record = jsonRecord(this.#lineAt(this.#found.offsets.at(place)), line);
    const row = record ? this.#read(record) : "the line is empty";
    if (typeof row !== "string") return row;
    throw new InputError(`${row}; it was right when the file was first read`, {
      where: `${this.#name}:${line}`,
      hint: "The file was changed meanwhile. Leave it as it is until the run is over.",
    });
  }

  #lineAt(offset: number): string {
    this.#file.seekSync(offset, system.SeekMode.Start);
    let length = 0;
    for (;;) {
      const count = this.#file.readSync(this.#buffer.subarray(length));
      const end = count === null ? length : this.#buffer.subarray(0, length + count).indexOf(0x0a, length);
      if (count === null || end >= 0) return new TextDecoder().decode(this.#buffer.subarray(0, end));
      length += count;
      if (length < this.#buffer.length) continue;
      const larger = new Uint8Array(2 * length);
      larger.set(this.#buffer);
      this.#buffer = larger;
    }
  }

  close(): void {
    this.#file.close();
    if (this.#removed) system.removeSync(this.#path);
  }
}

/** A file for rows of another format. */
async function scratchFile(path: string, folder: string | undefined): Promise<string> {
  try {
    if (folder !== undefined) await system.mkdir(folder, { recursive: true });
    return await system.makeTempFile({ ...(folder === undefined ? {} : { dir: folder }), suffix: ".jsonl" });
  } catch (cause) {
    throw new InputError(
      `only plain JSON Lines can be read from the disk row by row, and no copy of it as such can be written: ${
        (cause as Error).message
      }`,
      { where: path, hint: "Write it as JSON Lines, or set data.streaming: false.", cause },
    );
  }
}

/** A record, where it begins, and its line. */
interface PlacedLine {
  readonly row: ReturnType<typeof jsonRecord>;
  readonly offset: number;
  readonly line: number;
}

/** Goes through the rows of a file once. */
class Finder {
  readonly #file: OpenedFile;
  readonly #options: RowFileOptions;
  readonly #read: ReturnType<typeof rowReader>;

  constructor(file: OpenedFile, options: RowFileOptions) {
    [this.#file, this.#options] = [file, options];
    this.#read = rowReader(file.path, options.columns);
  }

  async find(lines: AsyncIterable<readonly PlacedLine[]>): Promise<Found> {
    const { path } = this.#file;
    const { limit = Infinity, seen, heldOut, heldOutShare } = this.#options;
    const [offsets, numbers, places] = [new NumberList(64), new NumberList(32), new NumberList(32)];
    const problems: { source: RowSource; message: string }[] = [];
    const origins = new Set<string>();
    const hash = createHash("sha256");
    let [rows, duplicates, shared] = [0, 0, 0];
    reading:
    for await (const batch of lines) {
      for (const { row: record, offset, line } of batch) {
        if (!record) continue;
        if (rows === limit) break reading;
        const row = this.#read(record);
        if (typeof row === "string") {
          problems.push({ source: { file: record.file ?? path, line }, message: row });
          if (problems.length === MOST_ERRORS) throw new DatasetError(path, problems, true);
          continue;
        }
        rows++;
        const content = contentHash(row);
        const short = parseInt(content.slice(0, 13), 16);
        if (seen && !seen.add(short)) {
          duplicates++;
          continue;
        }
        if (heldOut?.has(short)) shared++;
        offsets.push(offset);
        numbers.push(line);
        if (heldOutShare) places.push(Math.floor(hashPlace(content) * 2 ** 32));
        if (row.origin !== undefined && origins.size < 1000) origins.add(row.origin);
        hash.update(content).update(row.origin ?? "");
      }
    }
    if (problems.length > 0) throw new DatasetError(path, problems, false);
    if (offsets.length === 0) {
      throw new InputError(rows === 0 ? "the dataset is empty" : "all of its rows are copies of others", {
        where: path,
      });
    }
    const threshold = heldOutShare ? heldOutShare(offsets.length) * 2 ** 32 : 0;
    const held: number[] = [];
    for (let i = 0; i < places.length; i++) if (places.at(i) < threshold) held.push(i);
    if (heldOutShare && (held.length === 0 || held.length === offsets.length)) {
      throw new InputError(`no rows can be held out of ${offsets.length}`, {
        where: path,
        hint: "Add rows, or name a file as data.heldOut.",
      });
    }
    return {
      ...{ offsets, lines: numbers, origins, duplicates, shared },
      heldOut: held,
      identity: hash.digest("hex"),
    };
  }
}

/** The lines of a file of JSON Lines with their places. */
async function* linesOf(
  { path, bytes: size }: OpenedFile,
  onProgress: RowFileOptions["onProgress"],
): AsyncGenerator<readonly PlacedLine[]> {
  const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let line = 0;
  for await (const { bytes, offset, lines, tooLong } of lineBlocks(chunksOf(path), MAX_LINE_BYTES)) {
    const batch: PlacedLine[] = [];
    for (let at = 0, i = 0; i < lines; i++) {
      line++;
      const newline = bytes.indexOf(0x0a, at);
      const end = newline < 0 ? bytes.length : newline;
      let row: PlacedLine["row"];
      try {
        const text = strict.decode(bytes.subarray(at, end));
        row = tooLong
          ? { line, problem: `the line is longer than ${MAX_LINE_BYTES} bytes` }
          : jsonRecord(line === 1 ? text.replace(/^\ufeff/, "") : text, line);
      } catch {
        row = { line, problem: "the line is not valid UTF-8" };
      }
      batch.push({ row, offset: offset + at, line });
      at = end + 1;
    }
    yield batch;
    onProgress?.(offset + bytes.length, size);
  }
}

/** The rows of a file of another format, written as JSON Lines while they are read. */
async function* rewritten(
  file: OpenedFile,
  scratch: string,
  { columns: names, onProgress }: RowFileOptions,
): AsyncGenerator<readonly PlacedLine[]> {
  const columns = names && new Columns(names);
  const batches = file.records({
    ...(columns ? { wanted: columns.wanted, nested: columns.nested } : {}),
    onRead: (bytes) => onProgress?.(bytes, file.bytes),
  });
  using output = await system.open(scratch, { write: true, truncate: true });
  const encoder = new TextEncoder();
  const read = rowReader(file.path, names);
  let offset = 0;
  for await (const records of batches) {
    const batch: PlacedLine[] = [];
    const pieces: Uint8Array[] = [];
    for (const record of records) {
      const row = read(record);
      const { line } = record;
      batch.push({ row: record, offset, line });
      if (typeof row === "string") continue;
      const { source: _, shape: _shape, origin, ...content } = row;
      const bytes = encoder.encode(JSON.stringify({ ...content, source: origin }) + "\n");
      pieces.push(bytes);
      offset += bytes.length;
    }
    await writeAll(output, joined(pieces));
    yield batch;
  }
}

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

async function writeAll(file: OpenFile, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done));
}
