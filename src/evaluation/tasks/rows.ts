/**
 * Rows of a task's data: files in any format that datasets have, tables without a line of names, or a text file that is one row. A folder
 * stands for its files in the order of their names.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename, extname, join } from "@std/path";
import { parse as parseCsv } from "csv-parse/sync";
import { system } from "../../base/system.ts";
import { InputError } from "../../base/errors.ts";
import { isObject } from "../../base/json.ts";
import { unreadable } from "../../formats/files.ts";
import { DatasetError, type RowSource } from "../../text/dataset.ts";
import { FORMATS, isDatasetName } from "../../text/read/format.ts";
import { openDataFile } from "../../text/read/open.ts";
import type { TaskRow } from "./template.ts";

/** A row and where it stands. */
export interface SourcedRow {
  readonly row: TaskRow;
  readonly source: RowSource;
}

/** How files are read. */
export interface RowOptions {
  /** Names of the columns of tables that have no line with them. */
  readonly columns?: readonly string[] | undefined;
  /** Most rows. */
  readonly limit?: number | undefined;
}

/** The field with the name of a row's file, without its ending. */
export const FILE_FIELD = "$file";

const HINT = `Name ${FORMATS}, or a .txt file that is one text.`;
const FORM = "Each row must be an object with the fields that the task names.";
/** Faulty rows that are named. */
const MOST_PROBLEMS = 20;

/**
 * The rows of some files.
 *
 * @throws {InputError} a file that is not there, that is not what its name says, or no rows at all
 * @throws {DatasetError} faulty rows
 */
export async function readTaskRows(
  paths: readonly string[],
  { columns, limit = Infinity }: RowOptions = {},
): Promise<SourcedRow[]> {
  const rows: SourcedRow[] = [];
  for (const path of paths) {
    for (const file of await filesAt(path)) {
      if (rows.length >= limit) break;
      const name = basename(file, extname(file));
      for await (const { row, source } of rowsOf(file, columns)) {
        rows.push({ row: { ...row, [FILE_FIELD]: name }, source });
        if (rows.length >= limit) break;
      }
    }
  }
  if (rows.length > 0) return rows;
  throw new InputError("the task has no rows", { where: paths.join(", "), hint: HINT });
}

async function filesAt(path: string): Promise<string[]> {
  const info = await system.stat(path).catch((error) => {
    throw unreadable(path, error);
  });
  if (!info.isDirectory) return [path];
  const names: string[] = [];
  for await (const { name, isFile } of system.readDir(path)) {
    if (isFile && (isDatasetName(name) || isText(name))) names.push(name);
  }
  if (names.length === 0) {
    throw new InputError("has no file that a task can be of", { where: path, hint: HINT });
  }
  return names.sort().map((name) => join(path, name));
}

function isText(name: string): boolean {
  return extname(name).toLowerCase() === ".txt";
}

async function* rowsOf(path: string, columns: readonly string[] | undefined): AsyncGenerator<SourcedRow> {
  if (isText(path)) {
    const text = await textOf(path);
    if (text !== "") yield { row: { text }, source: { file: path, line: 1 } };
    return;
  }
  const file = await openDataFile(path);
  if (columns && (file.format === "csv" || file.format === "tsv")) {
    yield* bareTable(await textOf(path), path, columns, file.format === "csv" ? "," : "\t");
    return;
  }
  const problems: { source: RowSource; message: string }[] = [];
  // Which columns are wanted is the templates' matter, row by row.
  for await (const batch of file.records({ wanted: [] })) {
    for (const record of batch) {
      const source = { file: path, line: record.line };
      if ("problem" in record) problems.push({ source, message: record.problem });
      else if (isObject(record.value)) yield { row: record.value, source };
      else problems.push({ source, message: "is no object" });
    }
    if (problems.length > MOST_PROBLEMS) break;
  }
  if (problems.length === 0) return;
  throw new DatasetError(path, problems.slice(0, MOST_PROBLEMS), problems.length > MOST_PROBLEMS, FORM);
}

async function textOf(path: string): Promise<string> {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await system.readFile(path));
  } catch (error) {
    if (error instanceof TypeError) throw new InputError("is not UTF-8 text", { where: path });
    throw unreadable(path, error);
  }
}

/** A table whose first line is a row. Fields are taken as they are, with nothing stripped; quoted ones may hold line ends. */
function bareTable(text: string, path: string, names: readonly string[], delimiter: string): SourcedRow[] {
  let records: string[][];
  try {
    // A quote within a field that does not begin with one is a character like others, as in MMLU's own files.
    records = parseCsv(text, {
      ...{ delimiter, bom: true, skip_empty_lines: true },
      ...{ relax_quotes: true, relax_column_count: true },
    });
  } catch (cause) {
    throw new InputError(`cannot be read as a table: ${(cause as Error).message}`, { where: path, cause });
  }
  // Records are counted, not lines: a quoted field may hold several.
  const sourceOf = (i: number) => ({ file: path, line: i + 1 });
  const problems = records.flatMap((record, i) =>
    record.length === names.length ? [] : [{
      source: sourceOf(i),
      message: `has ${record.length} fields where there are ${names.length} columns: ${names.join(", ")}`,
    }]
  );
  if (problems.length > 0) {
    const hint = "Lines are counted as records: a quoted field may hold line ends.";
    throw new DatasetError(path, problems.slice(0, MOST_PROBLEMS), problems.length > MOST_PROBLEMS, hint);
  }
  return records.map((record, i) => ({
    row: Object.fromEntries(names.map((name, column) => [name, record[column]!])),
    source: sourceOf(i),
  }));
}
