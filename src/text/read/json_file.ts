/**
 * Files that end with `.json`: one list of objects, an object with such a list as its `data`, or JSON Lines after all, as many datasets
 * are published.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { isObject } from "../../base/json.ts";
import { isUtf16, jsonLines, type JsonLinesOptions } from "./json_lines.ts";
import type { FileRecord } from "./records.ts";

/** Largest file that is parsed as a whole: no longer text fits a string. */
const MAX_BYTES = 500 * 2 ** 20;
/** Records that are handed on together. */
const BATCH = 1024;

/**
 * Records of a JSON file; those of a list are numbered from 1.
 *
 * @param source the bytes, in chunks of any size
 * @throws {InputError} it is no JSON, too large to be parsed as a whole, or holds no list of objects
 */
export async function* jsonFile(
  source: AsyncIterable<Uint8Array>,
  file: string,
  options: JsonLinesOptions = {},
): AsyncGenerator<FileRecord[]> {
  const chunks = source[Symbol.asyncIterator]();
  const begun = await beginning(chunks);
  if (isJsonLines(begun)) {
    yield* jsonLines(following(begun, chunks), file, options);
    return;
  }
  const list = rowsIn(parse(await whole(following(begun, chunks), file), file), file);
  for (let first = 0; first < list.length; first += BATCH) {
    yield list.slice(first, first + BATCH).map((value, i) => ({ line: first + i + 1, value }));
  }
}

/** Bytes up to the end of the first line that is not blank, or a little more. */
async function beginning(chunks: AsyncIterator<Uint8Array>): Promise<Uint8Array[]> {
  const MOST = 2 ** 20;
  const read: Uint8Array[] = [];
  for (let length = 0; length < MOST;) {
    const { value, done } = await chunks.next();
    if (done) break;
    read.push(value.slice());
    length += value.length;
    const text = decoded(read).trimStart();
    if (text !== "" && (!text.startsWith("{") || text.includes("\n"))) break;
  }
  return read;
}

/** Whether the first line is an object by itself, and something follows it or could. */
function isJsonLines(begun: readonly Uint8Array[]): boolean {
  const [first] = decoded(begun).trimStart().split("\n", 1);
  if (!first!.startsWith("{")) return false;
  try {
    const value: unknown = JSON.parse(first!);
    return isObject(value) && !Array.isArray(value.data);
  } catch {
    return false;
  }
}

function decoded(parts: readonly Uint8Array[]): string {
  const decoder = new TextDecoder();
  return parts.map((part) => decoder.decode(part, { stream: true })).join("");
}

async function* following(
  begun: readonly Uint8Array[],
  chunks: AsyncIterator<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  yield* begun;
  for (;;) {
    const { value, done } = await chunks.next();
    if (done) return;
    yield value;
  }
}

async function whole(source: AsyncIterable<Uint8Array>, file: string): Promise<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const texts: string[] = [];
  let bytes = 0;
  for await (const chunk of source) {
    if (bytes === 0 && isUtf16(chunk)) {
      throw new InputError("the file is UTF-16; save it as UTF-8", { where: file });
    }
    bytes += chunk.length;
    if (bytes > MAX_BYTES) {
      throw new InputError(`has more than ${MAX_BYTES / 2 ** 20} MiB, too many to be read as one list`, {
        where: file,
        hint: "Write it as JSON Lines, which are read line by line: jq -c '.[]' data.json > data.jsonl",
      });
    }
    try {
      texts.push(decoder.decode(chunk, { stream: true }));
    } catch (cause) {
      throw new InputError("is not valid UTF-8", { where: file, cause });
    }
  }
  return texts.join("");
}

function parse(text: string, file: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new InputError(`is not valid JSON: ${(cause as Error).message}`, {
      where: file,
      hint: "A file of one object a line may also be named .jsonl; its faulty lines are then named.",
      cause,
    });
  }
}

function rowsIn(value: unknown, file: string): unknown[] {
  if (Array.isArray(value)) return value;
  if (isObject(value) && Array.isArray(value.data)) return value.data;
  const found = isObject(value)
    ? `an object with ${
      Object.keys(value).slice(0, 8).map((key) => JSON.stringify(key)).join(", ") || "no keys"
    }`
    : `a ${typeof value}`;
  throw new InputError(
    `expected a list of objects, or an object with such a list as "data", found ${found}`,
    {
      where: file,
      hint: "Take the list out of it: jq -c '.NAME[]' data.json > data.jsonl",
    },
  );
}
