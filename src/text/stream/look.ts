/**
 * A quick look at a large file: what can be said of its rows without reading all of them.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { DatasetError, type DatasetRow, MOST_ERRORS, rowReader, type RowSource } from "../dataset.ts";
import { type ColumnNames, Columns } from "../read/columns.ts";
import { openDataFile } from "../read/open.ts";

/** What a look may cost, and brings. */
export interface LookOptions {
  readonly columns?: ColumnNames;
  /** Rows that are brought, spread over what was read. */
  readonly rows?: number;
  /** Milliseconds for which every row is read and checked; half as long again some of them are, where the format allows for that. */
  readonly milliseconds?: number;
  /** Most rows used of the file; all when absent. */
  readonly limit?: number;
}

/** What was seen of a file. */
export interface Look {
  /** Rows spread over all of what was read, the first one among them. */
  readonly rows: DatasetRow[];
  /** Rows that were read and found to be right. */
  readonly checked: number;
  /** Rows that it has: counted where it was read to its end, else estimated from the part that was. */
  readonly total: number;
  readonly isCounted: boolean;
}

/** Files that are larger are looked at, not read, in bytes on the disk: others are read in less than a second. */
export const LOOK_BYTES: number = 8 * 2 ** 20;
const ROWS = 1024;
const MILLISECONDS = 600;
/** Rows of each piece of a file that are read where not all are. */
const SOME = 16;

/**
 * Reads and checks rows from the beginning on for a while, then some of them.
 *
 * @throws {InputError} what opening throws; no rows
 * @throws {DatasetError} the first faulty rows, as far as they were seen
 */
export async function lookAt(path: string, options: LookOptions = {}): Promise<Look> {
  const { columns: names, rows: wanted = ROWS, milliseconds = MILLISECONDS, limit = Infinity } = options;
  const file = await openDataFile(path);
  const columns = names && new Columns(names);
  const read = rowReader(path, names);
  const spread = new SpreadRows(wanted);
  const problems: { source: RowSource; message: string }[] = [];
  const begin = performance.now();
  let [checked, bytes, lines, isCounted] = [0, 0, 0, true];
  const batches = file.records({
    ...(columns ? { wanted: columns.wanted, nested: columns.nested } : {}),
    onRead: (count) => bytes = count,
    onLines: (count) => lines = count,
    most: () => performance.now() < begin + milliseconds ? Infinity : SOME,
  });
  reading:
  for await (const batch of batches) {
    for (const record of batch) {
      if (checked === limit) break reading;
      const row = read(record);
      if (typeof row === "string") {
        problems.push({ source: { file: record.file ?? path, line: record.line }, message: row });
        if (problems.length === MOST_ERRORS) throw new DatasetError(path, problems, true);
        continue;
      }
      spread.add(row);
      checked++;
    }
    if (performance.now() < begin + milliseconds * 1.5) continue;
    isCounted = false;
    break;
  }
  if (problems.length > 0) throw new DatasetError(path, problems, !isCounted);
  if (checked === 0) throw new InputError("the dataset is empty", { where: path });
  const seen = Math.max(checked, lines);
  const share = isCounted ? 1 : Math.max(bytes, 1) / file.bytes;
  // Where some rows were passed over, blank lines were counted too.
  const total = Math.min(limit, isCounted && checked === lines ? checked : Math.round(seen / share));
  return { rows: spread.taken(), checked, total, isCounted: isCounted || checked === limit };
}

/** Some rows of a stream whose length is not known, always evenly spread over the lines that have come. */
class SpreadRows {
  readonly #most: number;
  #rows: DatasetRow[] = [];
  #stride = 1;
  /** The line from which on the next row is taken. */
  #next = 0;

  constructor(most: number) {
    this.#most = most;
  }

  add(row: DatasetRow): void {
    if (row.source.line < this.#next) return;
    this.#rows.push(row);
    if (this.#rows.length === 2 * this.#most) {
      this.#stride *= 2;
      const all = this.#rows;
      this.#rows = [];
      for (const row of all) if (row.source.line >= this.#nextAfterLast()) this.#rows.push(row);
    }
    this.#next = this.#nextAfterLast();
  }

  #nextAfterLast(): number {
    const last = this.#rows.at(-1);
    return last ? last.source.line + this.#stride : 0;
  }

  /** As many as are wanted, the first one among them. */
  taken(): DatasetRow[] {
    const count = this.#rows.length;
    const most = Math.min(count, this.#most);
    return Array.from({ length: most }, (_, i) => this.#rows[Math.floor(i * count / most)]!);
  }
}
