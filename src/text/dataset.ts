/**
 * Datasets: JSON Lines with one sample a line, in one of three shapes that the field's tools share:
 * `{"text"}`, `{"prompt", "completion"}`, `{"messages": [{"role", "content"}, ...]}`. A file may mix them, since each line says which it is;
 * a line that fits two is refused. A line may say who wrote it, `"source": "student"`, and which of several teachers is to teach it,
 * `"teacher": "math"`.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { InputError } from "../base/errors.ts";
import { canonicalJson } from "../base/json.ts";
import { isObject } from "../base/json.ts";

/** Where a row came from. Lines count from 1. */
export interface RowSource {
  file: string;
  line: number;
}

/** One turn of a conversation. Further members (name, tool_calls, ...) are handed to the chat template as they are. */
export interface ChatMessage {
  role: string;
  content: string;
  [member: string]: unknown;
}

/** A row of a dataset. */
export type DatasetRow =
  & {
    source: RowSource;
    id?: string;
    /** Who wrote it, such as `teacher` or `student`: the member `source` of the line. Losses may count rows of one origin alone. */
    origin?: string;
    /** Which of several teachers is to teach it: the member `teacher` of the line. */
    teacher?: string;
  }
  & (
    | { shape: "text"; text: string }
    | { shape: "prompt"; prompt: string; completion: string }
    | { shape: "messages"; messages: ChatMessage[]; tools?: unknown[] }
  );

/** Limits of the reader. */
export interface ReadOptions {
  /** Longest line in bytes (default 16 MiB). */
  maxLineBytes?: number;
  /** Errors collected before reading stops (default 20). */
  maxErrors?: number;
}

/** A dataset with faulty lines: the message lists them, each with file and line. */
export class DatasetError extends InputError {
  override readonly code = "bad_dataset";
  /** One entry for each faulty line that was found. */
  readonly problems: readonly { source: RowSource; message: string }[];

  constructor(
    file: string,
    problems: { source: RowSource; message: string }[],
    stoppedEarly: boolean,
    hint = 'Each line must be a JSON object: {"text": "..."}, {"prompt": "...", "completion": "..."} or ' +
      '{"messages": [{"role": "user", "content": "..."}, ...]}.',
  ) {
    const lines = problems.map(({ source, message }) => `${source.file}:${source.line}: ${message}`);
    const count = problems.length === 1 ? "1 faulty line" : `${problems.length} faulty lines`;
    const more = stoppedEarly ? " (reading stopped there; there may be more)" : "";
    super([`${count}${more}`, ...lines].join("\n  "), { where: file, hint });
    this.problems = problems;
  }
}

const NEWLINE = 0x0a;

/**
 * Splits bytes into lines without the line end, never holding more than one line. A line over the limit comes as `"too long"`
 * once it has ended. The last line needs no line end.
 */
async function* splitLines(
  source: AsyncIterable<Uint8Array>,
  maxBytes: number,
): AsyncGenerator<Uint8Array | "too long"> {
  let parts: Uint8Array[] = [];
  let length = 0;
  const take = () => {
    const line = length > maxBytes ? "too long" as const : new Uint8Array(length);
    if (line !== "too long") {
      let at = 0;
      for (const part of parts) {
        line.set(part, at);
        at += part.length;
      }
    }
    parts = [];
    length = 0;
    return line;
  };
  for await (const chunk of source) {
    let start = 0;
    while (start < chunk.length) {
      const end = chunk.indexOf(NEWLINE, start);
      const part = chunk.subarray(start, end < 0 ? chunk.length : end);
      length += part.length;
      // What is beyond the limit is counted but not kept. Parts are copied, since a source may reuse its chunk.
      if (length <= maxBytes) parts.push(part.slice());
      else parts = [];
      if (end < 0) break;
      yield take();
      start = end + 1;
    }
  }
  if (length > 0) yield take();
}

/**
 * Reads rows from a stream of bytes. Good rows are yielded as they come; faulty lines are collected and thrown together at the end, or
 * when there are `maxErrors` of them.
 *
 * @param source the bytes of a JSON Lines file, in chunks of any size; a UTF-8 byte order mark at the start is allowed
 * @param file how to name the file in errors
 * @throws {DatasetError} faulty lines, after the last good row
 */
export async function* readRows(
  source: AsyncIterable<Uint8Array>,
  file: string,
  options: ReadOptions = {},
): AsyncGenerator<DatasetRow> {
  const { maxLineBytes = 16 * 2 ** 20, maxErrors = 20 } = options;
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const problems: { source: RowSource; message: string }[] = [];
  let line = 0;
  let begun = false;
  for await (const bytes of splitLines(source, maxLineBytes)) {
    line++;
    const where = { file, line };
    let row: DatasetRow | undefined;
    try {
      if (bytes === "too long") throw new RowProblem(`the line is longer than ${maxLineBytes} bytes`);
      let text = decodeLine(bytes, decoder, line);
      if (line === 1 && text.startsWith("\ufeff")) text = text.slice(1);
      if (text.trim() === "") continue;
      if (!begun && text.trimStart().startsWith("[")) {
        const message = "expected a JSON object, found a list";
        const hint = `Write one object a line. If the file is one list: jq -c '.[]' ${file} > train.jsonl`;
        throw new DatasetError(file, [{ source: where, message }], false, hint);
      }
      begun = true;
      row = parseRow(text, where);
    } catch (error) {
      if (!(error instanceof RowProblem)) throw error;
      problems.push({ source: where, message: error.message });
      if (problems.length >= maxErrors) throw new DatasetError(file, problems, true);
    }
    if (row) yield row;
  }
  if (problems.length > 0) throw new DatasetError(file, problems, false);
}

/** What is wrong with one line; becomes part of a {@linkcode DatasetError}. */
class RowProblem extends Error {}

function decodeLine(bytes: Uint8Array, decoder: TextDecoder, line: number): string {
  try {
    return decoder.decode(bytes);
  } catch {
    const utf16 = line === 1 &&
      ((bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff));
    throw new RowProblem(utf16 ? "the file is UTF-16; save it as UTF-8" : "the line is not valid UTF-8");
  }
}

function parseRow(text: string, source: RowSource): DatasetRow {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new RowProblem(`not valid JSON: ${(error as Error).message}`);
  }
  if (!isObject(value)) throw new RowProblem(`expected a JSON object, found ${describe(value)}`);
  const shapes = [
    "text" in value ? "text" : "",
    "prompt" in value || "completion" in value ? "prompt and completion" : "",
    "messages" in value ? "messages" : "",
  ].filter((shape) => shape !== "");
  if (shapes.length === 0) {
    const keys = Object.keys(value).slice(0, 8).map((key) => JSON.stringify(key)).join(", ");
    throw new RowProblem(
      `found neither text, nor prompt and completion, nor messages; its keys are: ${keys || "none"}`,
    );
  }
  if (shapes.length > 1) throw new RowProblem(`has ${shapes.join(" as well as ")}; keep one of them`);
  const row = { source, ...rowId(value.id), ...origin(value.source), ...teacherName(value.teacher) };
  if (shapes[0] === "text") return { ...row, shape: "text", text: string(value.text, "text", "filled") };
  if (shapes[0] === "messages") {
    return { ...row, shape: "messages", messages: chat(value.messages), ...tools(value.tools) };
  }
  const prompt = string(value.prompt, "prompt", "any");
  return { ...row, shape: "prompt", prompt, completion: string(value.completion, "completion", "filled") };
}

function describe(value: unknown): string {
  if (value === undefined) return "nothing";
  return value === null ? "null" : Array.isArray(value) ? "a list" : `a ${typeof value}`;
}

function string(value: unknown, name: string, need: "filled" | "any"): string {
  if (typeof value !== "string") throw new RowProblem(`${name} must be a string, found ${describe(value)}`);
  if (need === "filled" && value === "") throw new RowProblem(`${name} is empty`);
  if (!value.isWellFormed()) {
    throw new RowProblem(`${name} holds half of a surrogate pair (a broken \\u escape)`);
  }
  return value;
}

function rowId(id: unknown): { id?: string } {
  if (id === undefined || id === null) return {};
  if (typeof id !== "string" && typeof id !== "number") {
    throw new RowProblem(`id must be a string or a number, found ${describe(id)}`);
  }
  return { id: String(id) };
}

/** Datasets of others have a `source` of any kind; only a name means something here. */
function origin(value: unknown): { origin?: string } {
  return typeof value === "string" && value !== "" ? { origin: value } : {};
}

/** Likewise. */
function teacherName(value: unknown): { teacher?: string } {
  return typeof value === "string" && value !== "" ? { teacher: value } : {};
}

function tools(value: unknown): { tools?: unknown[] } {
  if (value === undefined || value === null) return {};
  if (!Array.isArray(value)) throw new RowProblem(`tools must be a list, found ${describe(value)}`);
  return { tools: value };
}

function chat(value: unknown): ChatMessage[] {
  if (!Array.isArray(value)) throw new RowProblem(`messages must be a list, found ${describe(value)}`);
  if (value.length === 0) throw new RowProblem("messages is empty");
  return value.map((message, i) => {
    const name = `messages[${i}]`;
    if (!isObject(message)) throw new RowProblem(`${name} must be an object, found ${describe(message)}`);
    return {
      ...message,
      role: string(message.role, `${name}.role`, "filled"),
      content: string(message.content, `${name}.content`, "any"),
    };
  });
}

/**
 * Reads a whole dataset file.
 *
 * @throws {InputError} no such file, or no rows in it
 * @throws {DatasetError} faulty lines
 */
export async function openDataset(path: string, options: ReadOptions = {}): Promise<DatasetRow[]> {
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path, { read: true });
  } catch (cause) {
    const reason = cause instanceof Deno.errors.NotFound
      ? "there is no such file"
      : cause instanceof Deno.errors.PermissionDenied
      ? "may not be read: permission is denied"
      : `cannot be read: ${(cause as Error).message}`;
    throw new InputError(reason, { where: path, cause, hint: "Name a JSON Lines file." });
  }
  if ((await file.stat()).isDirectory) {
    file.close();
    throw new InputError("this is a folder; name a JSON Lines file in it", { where: path });
  }
  const rows: DatasetRow[] = [];
  for await (const row of readRows(file.readable, path, options)) rows.push(row);
  if (rows.length === 0) {
    throw new InputError("the dataset is empty", {
      where: path,
      hint: 'Write one JSON object a line, e.g. {"text": "..."}.',
    });
  }
  return rows;
}

/** SHA-256 (hex) of what a row says, without its id, place and origin: equal content, equal hash. */
export function contentHash(row: DatasetRow): string {
  const { source: _source, id: _id, origin: _origin, ...content } = row;
  return createHash("sha256").update(canonicalJson(content)).digest("hex");
}

/**
 * Splits rows into training and held-out rows by the hash of their content: the same row always falls on the same side whatever the
 * order or the rest of the file, and copies of a row stay together. At least one row falls on either side.
 *
 * @param fraction expected share of held-out rows
 * @throws {InputError} fewer than two different rows
 */
export function splitHeldOut(
  rows: readonly DatasetRow[],
  fraction = 0.05,
): { train: DatasetRow[]; heldOut: DatasetRow[] } {
  const hashes = rows.map(contentHash);
  // The first 52 bits of the hash as a number in [0, 1).
  const places = hashes.map((hash) => parseInt(hash.slice(0, 13), 16) / 2 ** 52);
  const distinct = [...new Set(places)].sort((a, b) => a - b);
  if (distinct.length < 2) {
    throw new InputError("held-out rows cannot be split off: the dataset has fewer than two different rows", {
      where: rows[0]?.source.file,
      hint: "Add rows, or name a file as data.heldOut.",
    });
  }
  // Rows below the threshold are held out: never none, never all.
  const wanted = fraction > distinct[0] ? fraction : distinct[1];
  const threshold = Math.min(wanted, distinct[distinct.length - 1]);
  const train: DatasetRow[] = [];
  const heldOut: DatasetRow[] = [];
  rows.forEach((row, i) => (places[i] < threshold ? heldOut : train).push(row));
  return { train, heldOut };
}

/** How many rows of `heldOut` also stand in `train`: figures on them measure memory, not learning. */
export function countShared(train: readonly DatasetRow[], heldOut: readonly DatasetRow[]): number {
  const seen = new Set(train.map(contentHash));
  return heldOut.filter((row) => seen.has(contentHash(row))).length;
}
