/**
 * Columns of others read as parts of a row: `{prompt: question, completion: answer}`.
 *
 * @module
 */
import { isObject } from "../../base/json.ts";
import { missingColumn } from "./records.ts";
import { RowProblem } from "./rows.ts";

/** Parts of a row that can be read from columns. */
export const ROW_PARTS = [
  "text",
  "prompt",
  "completion",
  "chosen",
  "rejected",
  "messages",
  "system",
  "tools",
  "privileged",
  "id",
  "source",
] as const;

/** Parts that are text. */
const TEXTS: ReadonlySet<string> = new Set([
  ...["text", "prompt", "completion", "chosen", "rejected", "system", "privileged"],
]);

/** A part of a row. */
export type RowPart = typeof ROW_PARTS[number];

/** For each part that is wanted, a column, or a template of several, such as `{question}\n{choices}`. */
export type ColumnNames = { readonly [part in RowPart]?: string | undefined };

/** Text and the names of columns, in turn. */
type Template = readonly { readonly text: string; readonly column?: string }[];

/**
 * Reads records by the names of their columns.
 *
 * A name with braces is a template: each `{column}` stands for its value, `{{` and `}}` for a brace. Numbers and truth values are written as
 * text, lists of texts one a line. Turns and tools are taken as they are. A system's text with a prompt and a completion makes a
 * conversation of three turns.
 *
 * @example
 * ```ts ignore
 * const columns = new Columns({ prompt: "Q: {question}\nA:", completion: "answer" });
 * columns.read({ question: "1 + 1?", answer: 2 }); // { prompt: "Q: 1 + 1?\nA:", completion: "2" }
 * ```
 */
export class Columns {
  /** Names of the columns that are read. */
  readonly wanted: readonly string[];
  /** Those that may hold lists of objects. */
  readonly nested: ReadonlySet<string>;
  readonly #parts: readonly (readonly [part: RowPart, template: Template | string])[];

  constructor(names: ColumnNames) {
    this.#parts = ROW_PARTS.flatMap((part) => {
      const name = names[part];
      return name === undefined ? [] : [[part, isTemplate(name) ? parseTemplate(name) : name] as const];
    });
    this.wanted = [
      ...new Set(
        this.#parts.flatMap(([, found]) =>
          typeof found === "string" ? [found] : found.flatMap(({ column }) => column ?? [])
        ),
      ),
    ];
    this.nested = new Set(
      this.#parts.flatMap(([part, found]) =>
        typeof found === "string" && (part === "messages" || part === "tools") ? [found] : []
      ),
    );
  }

  /**
   * The parts of a row.
   *
   * @throws {RowProblem} a column is missing, or is no text where one is needed
   */
  read(value: unknown): unknown {
    if (!isObject(value)) return value;
    const row: Record<string, unknown> = {};
    for (const [part, found] of this.#parts) {
      if (typeof found !== "string") row[part] = found.map((piece) => filled(piece, value)).join("");
      else if (Object.hasOwn(value, found)) {
        row[part] = TEXTS.has(part) ? textOf(value[found], found) : value[found];
      } else if (part !== "id" && part !== "source" && part !== "tools" && part !== "system") {
        throw new RowProblem(missingColumn(found, Object.keys(value)));
      }
    }
    return withSystem(row);
  }
}

/** A system's text becomes the first turn. */
function withSystem({ system, ...row }: Record<string, unknown>): Record<string, unknown> {
  if (typeof system !== "string" || system === "") return row;
  const first = { role: "system", content: system };
  if (Array.isArray(row.messages)) return { ...row, messages: [first, ...row.messages] };
  if (typeof row.prompt !== "string" || typeof row.completion !== "string") return row;
  const { prompt, completion, ...rest } = row;
  const turns = [first, { role: "user", content: prompt }, { role: "assistant", content: completion }];
  return { ...rest, messages: turns };
}

function filled({ text, column }: Template[number], value: Record<string, unknown>): string {
  if (column === undefined) return text;
  if (!Object.hasOwn(value, column)) throw new RowProblem(missingColumn(column, Object.keys(value)));
  return text + textOf(value[column], column);
}

function textOf(value: unknown, column: string): string {
  if (typeof value === "string") return value;
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  if (value === null || value === undefined) return "";
  if (Array.isArray(value) && value.every((item) => typeof item === "string" || typeof item === "number")) {
    return value.join("\n");
  }
  throw new RowProblem(
    `${column} must be text, a number or a list of texts, found ${
      Array.isArray(value) ? "a list" : "an object"
    }`,
  );
}

/** Whether a name has a brace. */
export function isTemplate(name: string): boolean {
  return /[{}]/.test(name);
}

/**
 * Reads a template.
 *
 * @throws {RowProblem} a brace that is not closed, or nothing in a pair of them
 */
export function parseTemplate(template: string): Template {
  const pieces: { text: string; column?: string }[] = [];
  let text = "";
  for (let at = 0; at < template.length; at++) {
    const character = template[at]!;
    if (character !== "{" && character !== "}") text += character;
    else if (template[at + 1] === character) {
      text += character;
      at++;
    } else {
      const end = character === "{" ? template.indexOf("}", at) : -1;
      const column = template.slice(at + 1, end);
      if (end < 0 || column === "" || column.includes("{")) {
        throw new RowProblem(
          `${
            JSON.stringify(template)
          } has a ${character} that belongs to no {column}; write {{ and }} for braces`,
        );
      }
      pieces.push({ text, column });
      text = "";
      at = end;
    }
  }
  if (text !== "" || pieces.length === 0) pieces.push({ text });
  return pieces;
}
