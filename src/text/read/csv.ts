/**
 * Tables of comma- or tab-separated values with a header (RFC 4180): quoted fields may hold separators, quotes and line ends.
 *
 * @module
 */
import { Readable } from "node:stream";
import { CsvError, parse } from "csv-parse";
import { InputError } from "../../base/errors.ts";
import { isUtf16 } from "./json_lines.ts";
import { checkColumns, type FileRecord } from "./records.ts";
import { DatasetError } from "./rows.ts";

/** Records that are handed on together. */
const BATCH = 512;

/** How a table is read. */
export interface CsvOptions {
  readonly delimiter: "," | "\t";
  /** Longest record, in characters. */
  readonly maxRecord: number;
  /** Columns that are asked for by name. */
  readonly wanted?: readonly string[];
}

/**
 * Records of a table as objects of text by column; cells without text are left out of columns that a row may lack.
 *
 * @param source the bytes, in chunks of any size; a UTF-8 byte order mark at the start is allowed
 * @throws {InputError} no header, or one without the columns that are needed
 * @throws {DatasetError} a quote that is not closed: nothing after it can be read
 */
export async function* csvRecords(
  source: AsyncIterable<Uint8Array>,
  file: string,
  { delimiter, maxRecord, wanted }: CsvOptions,
): AsyncGenerator<FileRecord[]> {
  /** The line at which the last whole record ends. Records that nobody has read yet count too. */
  let ended = 0;
  const parser = parse({
    ...{ delimiter, max_record_size: maxRecord, relax_column_count: true, skip_empty_lines: true },
    // A quote within a field that does not begin with one is a quote, as most programs write and read it.
    relax_quotes: true,
    ...{ info: true, raw: true },
    on_record(record: string[], { lines }: { lines: number }) {
      ended = lines;
      return record;
    },
  });
  const text = Readable.from(decodedText(source, file));
  text.on("error", (error) => parser.destroy(error));
  text.pipe(parser);
  let header: string[] | undefined;
  let batch: FileRecord[] = [];
  try {
    for await (const { record: cells, raw, info: { lines } } of parser as AsyncIterable<ParsedRecord>) {
      if (!header) {
        header = cells.map((cell) => cell.trim());
        checkHeader(header, file, delimiter);
        checkColumns(file, header, wanted);
        continue;
      }
      const line = lines - raw.trim().split("\n").length + 1;
      if (cells.length === header.length) batch.push({ line, value: namedCells(header, cells) });
      else {
        batch.push({
          line,
          problem: `has ${cells.length} ${
            cells.length === 1 ? "field" : "fields"
          }, the header ${header.length}`,
        });
      }
      if (batch.length === BATCH) {
        yield batch;
        batch = [];
      }
    }
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    // The parser tells where it gave up, which is the end of the file for a quote that nobody closes.
    const line = ended + 1;
    const message = error.code === "CSV_MAX_RECORD_SIZE"
      ? `the record is longer than ${maxRecord} characters; is a quote not closed?`
      : error.code === "CSV_QUOTE_NOT_CLOSED"
      ? "a quote is opened that is never closed"
      : error.message.replace(/ at line \d+/, "");
    throw new DatasetError(
      file,
      [{ source: { file, line }, message }],
      true,
      'A field with quotes or line ends in it stands in quotes, and each quote in it is doubled: "say ""yes""".',
    );
  } finally {
    text.destroy();
  }
  if (batch.length > 0) yield batch;
  if (!header) throw new InputError("the file is empty", { where: file });
}

interface ParsedRecord {
  readonly record: string[];
  readonly raw: string;
  readonly info: { readonly lines: number };
}

function checkHeader(header: readonly string[], file: string, delimiter: string): void {
  const twice = header.find((name, i) => header.indexOf(name) !== i);
  if (twice !== undefined) {
    throw new InputError(`two columns are called ${JSON.stringify(twice)}`, {
      where: `${file}:1`,
      hint: "The first line must name each column.",
    });
  }
  const other = delimiter === "," ? [";", "\t"] : [",", ";"];
  const meant = header.length === 1 ? other.find((separator) => header[0]!.includes(separator)) : undefined;
  if (meant === undefined) return;
  throw new InputError(
    `the header has ${JSON.stringify(meant)} where ${JSON.stringify(delimiter)} separates columns`,
    {
      where: `${file}:1`,
      hint: meant === "\t" || delimiter === "\t"
        ? "Tab-separated files end with .tsv, comma-separated ones with .csv."
        : "Save it with commas as separators.",
    },
  );
}

/** Columns that a row lacks where its cell is empty. */
const OPTIONAL: ReadonlySet<string> = new Set(["messages", "tools", "id", "source"]);

function namedCells(header: readonly string[], cells: readonly string[]): Record<string, string> {
  const value: Record<string, string> = {};
  header.forEach((name, i) => {
    if (cells[i] !== "" || !OPTIONAL.has(name)) {
      value[name] = cells[i]!;
    }
  });
  return value;
}

/** Text of a UTF-8 file without its byte order mark. */
async function* decodedText(source: AsyncIterable<Uint8Array>, file: string): AsyncGenerator<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let lines = 1;
  let first = true;
  for await (const chunk of source) {
    if (first && isUtf16(chunk)) {
      throw new InputError("the file is UTF-16; save it as UTF-8", { where: file });
    }
    first = false;
    let text: string;
    try {
      text = decoder.decode(chunk, { stream: true });
    } catch (cause) {
      throw new InputError("the line is not valid UTF-8", {
        where: `${file}:${faultyLine(chunk, lines)}`,
        hint: "Save the file as UTF-8.",
        cause,
      });
    }
    for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) lines++;
    // An empty piece would end the stream.
    if (text !== "") yield text;
  }
}

/** The line of a chunk that is no UTF-8; its first one may begin, and its last one end, within a character. */
function faultyLine(chunk: Uint8Array, first: number): number {
  for (let at = chunk.indexOf(0x0a) + 1, line = first + 1; at > 0 && at < chunk.length; line++) {
    const end = chunk.indexOf(0x0a, at);
    try {
      new TextDecoder("utf-8", { fatal: true }).decode(chunk.subarray(at, end < 0 ? chunk.length : end), {
        stream: end < 0,
      });
    } catch {
      return line;
    }
    at = end + 1;
  }
  return first;
}
