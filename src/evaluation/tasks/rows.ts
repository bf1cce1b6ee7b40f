/**
 * Rows of a task's data: JSON Lines with an object a line, CSV, or a text file that is one row. A folder stands for its files in the order
 * of their names.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename, extname, join } from "@std/path";
import { parse as parseCsv } from "csv-parse/sync";
import { InputError } from "../../base/errors.ts";
import { isObject } from "../../base/json.ts";
import { unreadable } from "../../formats/files.ts";
import { DatasetError, type RowSource } from "../../text/dataset.ts";
import type { TaskRow } from "./template.ts";

/** A row and where it stands. */
export interface SourcedRow {
  readonly row: TaskRow;
  readonly source: RowSource;
}

/** How files are read. */
export interface RowOptions {
  /** Names of the columns of CSV files that have no line with them. */
  readonly columns?: readonly string[] | undefined;
  /** Most rows. */
  readonly limit?: number | undefined;
}

/** The field with the name of a row's file, without its ending. */
export const FILE_FIELD = "$file";

const ENDINGS = ".jsonl, .csv, .tsv or .txt";
const FORM = "Each line must be a JSON object.";

/**
 * All rows of some files.
 *
 * @throws {InputError} a file that is not there, of another kind, or without rows
 * @throws {DatasetError} faulty lines
 */
export async function readTaskRows(
  paths: readonly string[],
  options: RowOptions = {},
): Promise<SourcedRow[]> {
  const rows: SourcedRow[] = [];
  for (const path of paths) {
    for (const file of await filesAt(path)) {
      if (rows.length < (options.limit ?? Infinity)) rows.push(...await rowsOf(file, options));
    }
  }
  if (rows.length > 0) return rows.slice(0, options.limit);
  throw new InputError("the task has no rows", {
    where: paths.join(", "),
    hint: `Name a ${ENDINGS} file with at least one row.`,
  });
}

async function filesAt(path: string): Promise<string[]> {
  const info = await Deno.stat(path).catch((error) => {
    throw unreadable(path, error);
  });
  if (!info.isDirectory) return [path];
  const names: string[] = [];
  for await (const { name, isFile } of Deno.readDir(path)) {
    if (isFile && extname(name) in READERS) names.push(name);
  }
  if (names.length === 0) throw new InputError(`has no ${ENDINGS} file`, { where: path });
  return names.sort().map((name) => join(path, name));
}

async function rowsOf(path: string, options: RowOptions): Promise<SourcedRow[]> {
  const read = READERS[extname(path).toLowerCase()];
  if (!read) throw new InputError(`a task's data are ${ENDINGS} files`, { where: path });
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(await Deno.readFile(path));
  } catch (error) {
    if (error instanceof TypeError) throw new InputError("is not UTF-8 text", { where: path });
    throw unreadable(path, error);
  }
  const file = basename(path, extname(path));
  return read(text, path, options).map(({ row, source }) => ({
    row: { ...row, [FILE_FIELD]: file },
    source,
  }));
}

type Reader = (text: string, path: string, options: RowOptions) => SourcedRow[];

const READERS: Readonly<Record<string, Reader>> = {
  ".jsonl": jsonLines,
  ".csv": (text, path, options) => table(text, path, options, ","),
  ".tsv": (text, path, options) => table(text, path, options, "\t"),
  ".txt": (text, path) => (text === "" ? [] : [{ row: { text }, source: { file: path, line: 1 } }]),
};

function jsonLines(text: string, path: string): SourcedRow[] {
  const rows: SourcedRow[] = [];
  const problems: { source: RowSource; message: string }[] = [];
  for (const [i, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue;
    const source = { file: path, line: i + 1 };
    try {
      const row: unknown = JSON.parse(line);
      if (isObject(row)) rows.push({ row, source });
      else problems.push({ source, message: "is no JSON object" });
    } catch (error) {
      problems.push({ source, message: `not valid JSON: ${(error as Error).message}` });
    }
  }
  if (problems.length > 0) throw new DatasetError(path, problems.slice(0, 20), problems.length > 20, FORM);
  return rows;
}

/** Fields are taken as they are, with nothing stripped; quoted ones may hold line ends. */
function table(text: string, path: string, { columns }: RowOptions, separator: string): SourcedRow[] {
  let records: string[][];
  try {
    // A quote within a field that does not begin with one is a character like others, as in MMLU's own files.
    records = parseCsv(text, {
      ...{ delimiter: separator, bom: true, skip_empty_lines: true },
      ...{ relax_quotes: true, relax_column_count: true },
    });
  } catch (cause) {
    throw new InputError(`cannot be read as a table: ${(cause as Error).message}`, { where: path, cause });
  }
  const names = columns ?? records.shift() ?? [];
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) {
    throw new InputError(`two columns are called ${JSON.stringify(twice)}`, {
      where: path,
      hint: "Name the columns in the task: columns: [question, answer].",
    });
  }
  // Records are counted, not lines: a quoted field may hold several.
  const first = columns ? 1 : 2;
  const problems = records.flatMap((record, i) =>
    record.length === names.length ? [] : [{
      source: { file: path, line: first + i },
      message: `has ${record.length} fields where there are ${names.length} columns: ${names.join(", ")}`,
    }]
  );
  if (problems.length > 0) {
    const hint = "Lines are counted as records: a quoted field may hold line ends.";
    throw new DatasetError(path, problems.slice(0, 20), problems.length > 20, hint);
  }
  return records.map((record, i) => ({
    row: Object.fromEntries(names.map((name, column) => [name, record[column]!])),
    source: { file: path, line: first + i },
  }));
}
