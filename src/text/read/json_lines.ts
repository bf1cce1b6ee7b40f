/**
 * JSON Lines: an object a line.
 *
 * @module
 */
import { lineBlocks } from "./lines.ts";
import type { FileRecord } from "./records.ts";
import { DatasetError } from "./rows.ts";

/** Longest line that is read unless another limit is given, in bytes. */
export const MAX_LINE_BYTES: number = 16 * 2 ** 20;

/** How JSON Lines are read. */
export interface JsonLinesOptions {
  /** Longest line, in bytes. */
  readonly maxLineBytes?: number;
  /** How many lines of the next piece are wanted; the others of it are passed over, which takes a tenth of the time. */
  readonly most?: () => number;
  /** Told how many lines have been read or passed over. */
  readonly onLines?: (count: number) => void;
}

/**
 * Records of JSON Lines. Blank lines are none; a UTF-8 byte order mark at the start is allowed.
 *
 * @param source the bytes, in chunks of any size
 * @param file how to name the file in errors
 * @throws {DatasetError} the file is one JSON list
 */
export async function* jsonLines(
  source: AsyncIterable<Uint8Array>,
  file: string,
  { maxLineBytes = MAX_LINE_BYTES, most, onLines }: JsonLinesOptions = {},
): AsyncGenerator<FileRecord[]> {
  let line = 0;
  let begun = false;
  for await (const { bytes, lines, tooLong } of lineBlocks(source, maxLineBytes)) {
    if (tooLong) {
      yield [{ line: ++line, problem: `the line is longer than ${maxLineBytes} bytes` }];
      continue;
    }
    const records: FileRecord[] = [];
    const wanted = Math.min(lines, most?.() ?? lines);
    const passed = line + lines;
    for (const text of textLines(wanted < lines ? beginningOf(bytes, wanted) : bytes, wanted)) {
      line++;
      if (typeof text !== "string") {
        records.push({ line, problem: line === 1 ? encodingProblem(text) : NOT_UTF8 });
        continue;
      }
      const content = line === 1 && text.startsWith("\ufeff") ? text.slice(1) : text;
      const record = jsonRecord(content, line);
      if (!record) continue;
      // The list may go on over the lines that follow.
      if (!begun && content.trimStart().startsWith("[")) {
        throw new DatasetError(
          file,
          [{ source: { file, line }, message: "expected a JSON object, found a list" }],
          false,
          "Write one object a line. A file that is one list of objects is read where its name ends with .json.",
        );
      }
      begun = true;
      records.push(record);
    }
    line = passed;
    onLines?.(passed);
    if (records.length > 0) yield records;
  }
}

/** What is on a line of JSON Lines; undefined where it is blank. */
export function jsonRecord(text: string, line: number): FileRecord | undefined {
  try {
    return { line, value: JSON.parse(text) };
  } catch (error) {
    if (text.trim() === "") return undefined;
    return { line, problem: `not valid JSON: ${(error as Error).message}` };
  }
}

/** So many lines of a block. */
function beginningOf(bytes: Uint8Array, lines: number): Uint8Array {
  let end = 0;
  for (let i = 0; i < lines; i++) end = bytes.indexOf(0x0a, end) + 1;
  return bytes.subarray(0, end);
}

const NOT_UTF8 = "the line is not valid UTF-8";
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The lines of a block as text; one that is no UTF-8 as it is. */
function textLines(bytes: Uint8Array, count: number): (string | Uint8Array)[] {
  try {
    const lines = strict.decode(bytes).split("\n");
    return lines.length > count ? lines.slice(0, count) : lines;
  } catch {
    // Line by line, to find the ones that are not.
  }
  const lines: (string | Uint8Array)[] = [];
  for (let at = 0; lines.length < count;) {
    const end = bytes.indexOf(0x0a, at);
    const line = bytes.subarray(at, end < 0 ? bytes.length : end);
    try {
      lines.push(strict.decode(line));
    } catch {
      lines.push(line);
    }
    at += line.length + 1;
  }
  return lines;
}

function encodingProblem(bytes: Uint8Array): string {
  return isUtf16(bytes) ? "the file is UTF-16; save it as UTF-8" : NOT_UTF8;
}

/** Whether bytes begin with the mark of UTF-16. */
export function isUtf16(bytes: Uint8Array): boolean {
  return (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff);
}
