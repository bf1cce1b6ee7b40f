/**
 * Templates of tasks: text with `{field}` in it, where a field may lie deeper (`{instances.0.input}`); of a list of objects, a field is the
 * list of theirs (`{choices.text}`). `{{` and `}}` are braces.
 *
 * @module
 */
import { didYouMean } from "../../base/did_you_mean.ts";
import { isObject } from "../../base/json.ts";

/** A row of a task's data. */
export type TaskRow = Readonly<Record<string, unknown>>;

/** A row does not do. What it says begins with what is wrong and leaves out where. */
export class TaskRowError extends Error {}

/**
 * The value of a field.
 *
 * @throws {TaskRowError} the row has no such field
 */
export function fieldOf(row: TaskRow, field: string): unknown {
  let value: unknown = row;
  for (const key of field.split(".")) {
    const next = memberOf(value, key);
    if (next === undefined) throw new TaskRowError(missing(row, field));
    value = next;
  }
  return value;
}

function memberOf(value: unknown, key: string): unknown {
  if (Array.isArray(value)) {
    if (/^\d+$/.test(key)) return value[Number(key)];
    const members = value.map((entry) => memberOf(entry, key));
    return members.length > 0 && !members.includes(undefined) ? members : undefined;
  }
  return isObject(value) && Object.hasOwn(value, key) ? value[key] : undefined;
}

function missing(row: TaskRow, field: string): string {
  const known = Object.keys(row).filter((name) => !name.startsWith("$"));
  const [first] = field.split(".") as [string];
  const what = Object.hasOwn(row, first) ? `nothing at {${field}}` : `no field {${field}}`;
  return `has ${what}${didYouMean(first, known)}; its fields are: ${known.join(", ") || "none"}`;
}

const PART = /\{\{|\}\}|\{([^{}]*)\}|[{}]/g;

/** The fields that a template names. */
export function templateFields(template: string): string[] {
  return [...template.matchAll(PART)].flatMap(([, field]) => (field === undefined ? [] : [field]));
}

/** What is wrong with a template; undefined where nothing is. */
export function templateProblem(template: string): string | undefined {
  for (const [part, field] of template.matchAll(PART)) {
    if (part === "{" || part === "}") {
      return `has a single ${part}; write ${part}${part} for one that is text`;
    }
    if (field === "") return "has {} without a field in it";
  }
  return undefined;
}

/**
 * A template with a row's fields in it.
 *
 * @throws {TaskRowError} a field that the row does not have, or that is no text and no number
 */
export function filled(template: string, row: TaskRow): string {
  return template.replace(PART, (part, field?: string) => {
    if (field === undefined) return part[0]!;
    const value = fieldOf(row, field);
    if (typeof value === "string") return value;
    if (typeof value === "number" || typeof value === "boolean") return String(value);
    throw new TaskRowError(
      `has ${
        value === null ? "null" : Array.isArray(value) ? "a list" : "an object"
      } at {${field}}, not text`,
    );
  });
}

/** The first of some templates whose fields are all there and not empty; the last, where none is. */
export function firstFilled(templates: readonly string[], row: TaskRow): string {
  const fits = templates.find((template) =>
    templateFields(template).every((field) => {
      try {
        const value = fieldOf(row, field);
        return value !== "" && value !== null;
      } catch (error) {
        if (error instanceof TaskRowError) return false;
        throw error;
      }
    })
  );
  return filled(fits ?? templates.at(-1)!, row);
}
