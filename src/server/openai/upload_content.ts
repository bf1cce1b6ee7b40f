/**
 * What is uploaded, as it comes: rows of JSON Lines, or one shape file. What it is, its first bytes say.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { parseShapeFile } from "../../formats/shape_file.ts";
import { HttpError } from "../http/http_error.ts";

/** The purpose that each kind of upload must name. */
export const PURPOSES = { "a dataset": "fine-tune", "a shape file": "shape" } as const;

/** Lines of a dataset that are looked at at once; a run looks at all of them. */
const LINES_CHECKED = 1000;
const BYTES_CHECKED = 1 << 22;
/** Bytes in which a shape file says that it is one. */
const BEGINNING = 64;
/** Most bytes of a shape file: it is checked as a whole. */
const SHAPE_BYTES = 1 << 24;

/** Checks what comes. */
export class UploadContent {
  /** Known once the first bytes have come. */
  kind: keyof typeof PURPOSES = "a dataset";

  /**
   * Hands the bytes of a file on.
   *
   * @throws {HttpError} 400 neither a dataset nor a shape file; 413 a shape file that is too long
   */
  async *of(content: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    const chunks = content[Symbol.asyncIterator]();
    const first: Uint8Array[] = [];
    for (let bytes = 0; bytes < BEGINNING;) {
      const { value, done } = await chunks.next();
      if (done) break;
      first.push(value);
      bytes += value.length;
    }
    const beginning = new TextDecoder().decode(joined(first).subarray(0, BEGINNING));
    const isShape = /^\s*\{\s*"limbeck"\s*:\s*"shape"/.test(beginning);
    if (isShape) this.kind = "a shape file";
    const all = {
      async *[Symbol.asyncIterator]() {
        yield* first;
        yield* { [Symbol.asyncIterator]: () => chunks };
      },
    };
    yield* isShape ? checkedShape(all) : checkedRows(all);
  }
}

function joined(chunks: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}

async function* checkedShape(content: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of content) {
    if ((bytes += chunk.length) > SHAPE_BYTES) {
      throw new HttpError(413, `a shape file may have at most ${SHAPE_BYTES} bytes`, { code: "too_large" });
    }
    // Whoever hands it on may use the same memory for the next one.
    chunks.push(chunk.slice());
    yield chunk;
  }
  try {
    parseShapeFile(new TextDecoder().decode(joined(chunks)), "the file");
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    throw new HttpError(400, error.message, { param: "file", cause: error });
  }
}

/** Hands the bytes of a dataset on; refuses at once what is no JSON Lines at all. */
async function* checkedRows(content: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const decoder = new TextDecoder();
  let [lines, rows, bytes] = [0, 0, 0];
  let begun = "";
  for await (const chunk of content) {
    if (lines < LINES_CHECKED && (bytes += chunk.length) <= BYTES_CHECKED) {
      const [first, ...more] = decoder.decode(chunk, { stream: true }).split("\n");
      const found = [begun + first, ...more];
      begun = found.pop()!;
      for (const line of found) rows += checkRow(line, ++lines);
    }
    yield chunk;
  }
  // The last one needs no end.
  if (bytes <= BYTES_CHECKED && lines < LINES_CHECKED) rows += checkRow(begun + decoder.decode(), ++lines);
  if (rows === 0) throw new HttpError(400, "the file has no rows", { param: "file" });
}

/** Refuses a line that is no row; 0 for an empty one, else 1. */
function checkRow(line: string, number: number): number {
  if (line.trim() === "") return 0;
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new HttpError(400, `line ${number} is not JSON: ${(cause as Error).message}`, {
      param: "file",
      cause,
    });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return 1;
  throw new HttpError(
    400,
    `line ${number} is no object; a row is {"text"}, {"prompt", "completion"} or {"messages"}`,
    { param: "file" },
  );
}
