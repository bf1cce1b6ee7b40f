/**
 * Rows of a dataset: what one line, record or object of a file must hold to become a sample.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { isObject } from "../../base/json.ts";

/** Where a row came from. Lines count from 1; in files without lines, such as Parquet, rows do. */
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
    /** What a teacher that is told more reads before the rest: the member `privileged` of the line. */
    privileged?: string;
  }
  & (
    | { shape: "text"; text: string }
    | { shape: "prompt"; prompt: string; completion: string }
    | { shape: "messages"; messages: ChatMessage[]; tools?: unknown[] }
    | { shape: "pair"; prompt: string; chosen: string; rejected: string }
  );

/** What is wrong with one row; becomes part of a {@linkcode DatasetError}. */
export class RowProblem extends Error {}

/** A dataset with faulty rows: the message lists them, each with file and line. */
export class DatasetError extends InputError {
  override readonly code = "bad_dataset";
  /** One entry for each faulty row that was found. */
  readonly problems: readonly { source: RowSource; message: string }[];

  constructor(
    file: string,
    problems: { source: RowSource; message: string }[],
    stoppedEarly: boolean,
    hint = 'Each line must be a JSON object: {"text": "..."}, {"prompt": "...", "completion": "..."}, ' +
      '{"messages": [{"role": "user", "content": "..."}, ...]} or ' +
      '{"prompt": "...", "chosen": "...", "rejected": "..."}. data.columns gives other names a meaning.',
  ) {
    const lines = problems.map(({ source, message }) => `${source.file}:${source.line}: ${message}`);
    const count = problems.length === 1 ? "1 faulty line" : `${problems.length} faulty lines`;
    const more = stoppedEarly ? " (reading stopped there; there may be more)" : "";
    super([`${count}${more}`, ...lines].join("\n  "), { where: file, hint });
    this.problems = problems;
  }
}

/**
 * Reads the members of an object as a row.
 *
 * @throws {RowProblem} it is none, or fits two shapes
 */
export function rowOf(value: unknown, source: RowSource): DatasetRow {
  if (!isObject(value)) throw new RowProblem(`expected a JSON object, found ${describe(value)}`);
  // Tables have every column in every row; those that a row does not use are null there.
  const filled = shapesOf((name) => value[name] !== undefined && value[name] !== null);
  const shapes = filled.length > 0 ? filled : shapesOf((name) => name in value);
  if (shapes.length === 0) {
    const keys = Object.keys(value).slice(0, 8).map((key) => JSON.stringify(key)).join(", ");
    throw new RowProblem(
      `found neither text, nor prompt and completion, nor messages, nor chosen and rejected; its keys are: ${
        keys || "none"
      }`,
    );
  }
  if (shapes.length > 1) {
    throw new RowProblem(`has ${shapes.join(" as well as ")}; keep one of them`);
  }
  const row = {
    source,
    ...rowId(value.id),
    ...origin(value.source),
    ...teacherName(value.teacher),
    ...privileged(value.privileged),
  };
  if (shapes[0] === "text") {
    return { ...row, shape: "text", text: string(value.text, "text", "filled") };
  }
  if (shapes[0] === "messages") {
    return { ...row, shape: "messages", messages: chat(value.messages), ...tools(value.tools) };
  }
  const prompt = string(value.prompt, "prompt", "any");
  if (shapes[0] === PAIR) {
    const chosen = string(value.chosen, "chosen", "filled");
    const rejected = string(value.rejected, "rejected", "filled");
    if (chosen === rejected) throw new RowProblem("chosen and rejected are the same");
    return { ...row, shape: "pair", prompt, chosen, rejected };
  }
  return { ...row, shape: "prompt", prompt, completion: string(value.completion, "completion", "filled") };
}

/** What a row of two answers to compare is called. */
const PAIR = "chosen and rejected";

function shapesOf(has: (name: string) => boolean): string[] {
  const isPair = has("chosen") || has("rejected");
  return [
    has("text") ? "text" : "",
    has("completion") || (has("prompt") && !isPair) ? "prompt and completion" : "",
    has("messages") ? "messages" : "",
    isPair ? PAIR : "",
  ].filter((shape) => shape !== "");
}

/** What kind of value it is, in words. */
export function describe(value: unknown): string {
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

/** Likewise. */
function privileged(value: unknown): { privileged?: string } {
  return typeof value === "string" && value !== "" ? { privileged: string(value, "privileged", "any") } : {};
}

function tools(value: unknown): { tools?: unknown[] } {
  if (value === undefined || value === null || value === "") return {};
  const list = listOf(value);
  if (!list) throw new RowProblem(`tools must be a list, found ${describe(value)}`);
  return { tools: list };
}

/** A list, or one written as JSON: tables have no lists, and Parquet files of tools that differ in shape hold text. */
function listOf(value: unknown): unknown[] | undefined {
  if (Array.isArray(value)) return value;
  if (typeof value !== "string" || !value.trimStart().startsWith("[")) return undefined;
  try {
    return JSON.parse(value);
  } catch {
    return undefined;
  }
}

function chat(value: unknown): ChatMessage[] {
  const list = listOf(value);
  if (!list) throw new RowProblem(`messages must be a list, found ${describe(value)}`);
  if (list.length === 0) throw new RowProblem("messages is empty");
  return list.map((message, i) => {
    const name = `messages[${i}]`;
    if (!isObject(message)) throw new RowProblem(`${name} must be an object, found ${describe(message)}`);
    if (message.role === undefined && message.from !== undefined) return shareGptMessage(message, name);
    return {
      ...message,
      role: string(message.role, `${name}.role`, "filled"),
      content: string(contentOf(message), `${name}.content`, "any"),
    };
  });
}

/** A turn that only calls tools has no content; one in parts, as vision models have it, may be all text. */
function contentOf({ content, tool_calls }: Record<string, unknown>): unknown {
  if (content === undefined || content === null) {
    return Array.isArray(tool_calls) && tool_calls.length > 0 ? "" : content;
  }
  if (!Array.isArray(content)) return content;
  const texts = content.map((part) => isObject(part) && part.type === "text" ? part.text : undefined);
  return texts.every((text) => typeof text === "string") ? texts.join("") : content;
}

/** How `from` of the ShareGPT form names a role. */
const SHARE_GPT_ROLES: Readonly<Record<string, string>> = {
  human: "user",
  user: "user",
  gpt: "assistant",
  assistant: "assistant",
  system: "system",
  tool: "tool",
  observation: "tool",
};

function shareGptMessage({ from, value }: Record<string, unknown>, name: string): ChatMessage {
  const role = typeof from === "string" && Object.hasOwn(SHARE_GPT_ROLES, from) ? SHARE_GPT_ROLES[from]! : "";
  if (role === "") {
    throw new RowProblem(
      `${name}.from is ${JSON.stringify(from)}; it must be one of ${Object.keys(SHARE_GPT_ROLES).join(", ")}`,
    );
  }
  return { role, content: string(value, `${name}.value`, "any") };
}
