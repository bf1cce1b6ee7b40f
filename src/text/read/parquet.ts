/**
 * Parquet files, a group of rows at a time: as much memory is needed as the columns of the largest group take.
 *
 * @module
 */
import { type AsyncBuffer, parquetMetadataAsync, parquetReadObjects, parquetSchema } from "hyparquet";
import type { FileMetaData, SchemaTree } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { InputError } from "../../base/errors.ts";
import { checkColumns, type FileRecord, ROW_COLUMNS } from "./records.ts";

/** Columns in which lists of objects mean something. */
const MAY_NEST: ReadonlySet<string> = new Set(["messages", "tools"]);

/** How a Parquet file is read. */
export interface ParquetOptions {
  /** Columns that are asked for by name. */
  readonly wanted?: readonly string[];
  /** Those of them that turns or tools are read from, which may be lists of objects. */
  readonly nested?: ReadonlySet<string>;
}

/**
 * Records of a Parquet file as objects, with the columns that rows are read from; rows are numbered from 1.
 *
 * @throws {InputError} it is none, a column is missing, or holds nested values where text is meant
 */
export async function* parquetRecords(
  file: AsyncBuffer,
  name: string,
  { wanted, nested = MAY_NEST }: ParquetOptions = {},
): AsyncGenerator<FileRecord[]> {
  const metadata = await readMetadata(file, name);
  const tree = new Map(parquetSchema(metadata).children.map((child) => [child.element.name, child]));
  const there = [...tree.keys()];
  checkColumns(name, there, wanted);
  const columns = wanted ? [...new Set(wanted)] : there.filter((column) => ROW_COLUMNS.includes(column));
  for (const column of columns) checkFlat(tree.get(column)!, nested.has(column), name);
  let first = 0;
  for (const { num_rows } of metadata.row_groups) {
    // A part of a group costs as much to decode as the whole.
    const end = first + Number(num_rows);
    const rows = await readRows(file, metadata, columns, first, end, name);
    yield rows.map((row, i) => ({ line: first + i + 1, value: plainRow(row) }));
    first = end;
  }
}

async function readMetadata(file: AsyncBuffer, name: string): Promise<FileMetaData> {
  try {
    return await parquetMetadataAsync(file);
  } catch (cause) {
    throw damaged(name, cause);
  }
}

async function readRows(
  file: AsyncBuffer,
  metadata: FileMetaData,
  columns: string[],
  rowStart: number,
  rowEnd: number,
  name: string,
): Promise<Record<string, unknown>[]> {
  try {
    return await parquetReadObjects({ file, metadata, columns, rowStart, rowEnd, compressors });
  } catch (cause) {
    throw damaged(`${name}, rows ${rowStart + 1} to ${rowEnd}`, cause);
  }
}

function damaged(where: string, cause: unknown): InputError {
  return new InputError(`cannot be read as Parquet: ${cause instanceof Error ? cause.message : cause}`, {
    where,
    hint:
      "The file is cut off or damaged, or compressed in a way that is not known here: write it with zstd.",
    cause,
  });
}

/** Lists of objects are turns and tools; texts cannot be read from what is nested, but from lists of texts. */
function checkFlat({ element, children }: SchemaTree, mayNest: boolean, name: string): void {
  const isNested = children.length > 0 || element.repetition_type === "REPEATED";
  if (!isNested || mayNest || isPlainList(children)) return;
  throw new InputError(
    `the column ${JSON.stringify(element.name)} is nested (${
      typeText(element.logical_type?.type, children)
    }), and only ` +
      "messages and tools may be",
    {
      where: name,
      hint: "Write a column of text from it, or name one of its siblings in data.columns.",
    },
  );
}

/** A list is a group of one repeated group of one element. */
function isPlainList([repeated, ...others]: readonly SchemaTree[]): boolean {
  return others.length === 0 && repeated?.element.repetition_type === "REPEATED" &&
    repeated.children.length === 1 && repeated.children[0]!.children.length === 0;
}

function typeText(type: string | undefined, children: readonly SchemaTree[]): string {
  if (type === "LIST" || type === "MAP") return `a ${type.toLowerCase()}`;
  return children.length > 0 ? `of ${children.map((child) => child.element.name).join(", ")}` : "repeated";
}

function plainRow(row: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(row).map(([name, value]) => [name, plain(value)]));
}

/**
 * Values as JSON has them. In lists of objects, members that are null are left out: some of the objects have them. Whole numbers of 64 bits
 * are numbers where these are exact, else text.
 */
function plain(value: unknown): unknown {
  if (typeof value === "bigint") {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : String(value);
  }
  if (value instanceof Date) return value.toISOString();
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([name, inner]) =>
      inner === null || inner === undefined ? [] : [[name, plain(inner)]]
    ),
  );
}
