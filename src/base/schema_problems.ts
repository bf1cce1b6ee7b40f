/**
 * Turns what zod says of a file that someone wrote into sentences: where, what is wrong, what would be right.
 *
 * @module
 */
import type { z } from "zod";
import { didYouMean, oneOf } from "./did_you_mean.ts";

/** One broken rule. `path` is like `objective.0.weight`, empty for the whole. */
export interface SchemaProblem {
  path: string;
  message: string;
}

type Issue = z.core.$ZodIssue;

/** The part of JSON Schema that zod writes: what is said of a field and which fields stand beside it. */
export interface FieldSchema {
  description?: string;
  type?: string;
  properties?: Record<string, FieldSchema>;
  items?: FieldSchema;
  additionalProperties?: FieldSchema | false;
  anyOf?: FieldSchema[];
}

/**
 * One entry for each broken rule, in the order of the schema's fields.
 *
 * @param value What was checked, as written
 * @param schema JSON Schema of it, as one writes it
 */
export function describeIssues(
  issues: readonly Issue[],
  value: unknown,
  schema: FieldSchema,
): SchemaProblem[] {
  const problems = issues.flatMap((issue) => describe(issue, [], value, schema));
  const order = Object.keys(schema.properties ?? {});
  const rank = (problem: SchemaProblem) => order.indexOf(problem.path.split(".")[0]!);
  return problems.sort((a, b) => rank(a) - rank(b));
}

function describe(
  issue: Issue,
  prefix: readonly PropertyKey[],
  value: unknown,
  schema: FieldSchema,
): SchemaProblem[] {
  const path = [...prefix, ...issue.path];
  const found = valueAt(value, path);
  const problem = (message: string, at = path) => [{ path: at.map(String).join("."), message }];
  const explained = (message: string) => {
    const description = schemaAt(schema, path)?.description;
    return problem(description ? sentences(message, `It is: ${description}`) : message);
  };
  switch (issue.code) {
    case "unrecognized_keys":
      return issue.keys.flatMap((key) => {
        const known = Object.keys(groupAt(schema, path)?.properties ?? {}).filter((name) =>
          name !== "$schema"
        );
        return problem(
          sentences(`there is no such field${didYouMean(key, known)}`, `Fields here: ${known.join(", ")}`),
          [
            ...path,
            key,
          ],
        );
      });
    case "invalid_type":
      if (found === undefined) return explained("is missing");
      return explained(
        `must be ${typeName(issue.expected)}, not ${show(found)}${asField(found, schema, path)}`,
      );
    case "invalid_value": {
      const values = issue.values.map(String);
      if (found === undefined) return explained(`is missing; it must be ${oneOf(values)}`);
      const near = typeof found === "string" ? didYouMean(found, values) : "";
      return explained(`must be ${oneOf(values)}, not ${show(found)}${near}`);
    }
    case "too_small": {
      if (issue.origin === "array") {
        return explained(`needs at least ${issue.minimum} ${entries(issue.minimum)}`);
      }
      if (issue.origin === "string") return explained("must not be empty");
      return explained(
        `must be ${issue.inclusive ? "at least" : "above"} ${issue.minimum}, not ${show(found)}`,
      );
    }
    case "too_big": {
      if (issue.origin === "array") {
        return explained(`may have at most ${issue.maximum} ${entries(issue.maximum)}`);
      }
      return explained(
        `must be ${issue.inclusive ? "at most" : "below"} ${issue.maximum}, not ${show(found)}`,
      );
    }
    case "invalid_union": {
      if (found === undefined) return explained("is missing");
      // A branch whose kind the value has says better than a list of kinds what is wrong with it.
      const isOfKind = (i: Issue) => i.path.length > 0 || !["invalid_type", "invalid_value"].includes(i.code);
      const inner = issue.errors.find((branch) => branch.length > 0 && branch.every(isOfKind));
      if (inner) return inner.flatMap((i) => describe(i, path, value, schema));
      const close = issue.errors.flat().find((i) => i.code === "too_small" || i.code === "too_big");
      if (close) return describe(close, path, value, schema);
      const names = issue.errors.flat().flatMap((i) =>
        i.code === "invalid_value"
          ? i.values.map(String)
          : i.code === "invalid_type"
          ? [typeName(i.expected)]
          : []
      );
      const near = typeof found === "string"
        ? didYouMean(found, names.filter((name) => !name.includes(" ")))
        : "";
      return explained(`must be ${oneOf(names)}, not ${show(found)}${near}`);
    }
    case "invalid_key":
    case "invalid_element":
      return issue.issues.flatMap((i) => describe(i, path, value, schema));
    case "custom":
      return problem(issue.message);
    default:
      return explained(issue.message);
  }
}

/** What to write where the path alone stands of a group of fields that names one. */
function asField(found: unknown, schema: FieldSchema, path: readonly PropertyKey[]): string {
  if (typeof found !== "string") return "";
  const { properties = {} } = groupAt(schema, path) ?? {};
  const field = ["path", "model"].find((name) => name in properties);
  return field === undefined ? "" : `; write {${field}: ${found}}`;
}

/** The schema at a path, or the part of it that has fields where something else may stand there too. */
function groupAt(whole: FieldSchema, path: readonly PropertyKey[]): FieldSchema | undefined {
  const schema = schemaAt(whole, path);
  return schema?.anyOf?.find((branch) => branch.properties) ?? schema;
}

function schemaAt(whole: FieldSchema, path: readonly PropertyKey[]): FieldSchema | undefined {
  let schema: FieldSchema | undefined = whole;
  for (const key of path) {
    const branches: FieldSchema[] = schema?.anyOf ?? (schema ? [schema] : []);
    schema = branches.map((branch) =>
      typeof key === "number"
        ? branch.items
        : branch.properties?.[String(key)] ?? (branch.additionalProperties || undefined)
    ).find((next) => next !== undefined);
  }
  return schema;
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  for (const key of path) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Record<PropertyKey, unknown>)[key];
  }
  return value;
}

const TYPE_NAMES: Readonly<Record<string, string>> = {
  string: "a text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  array: "a list",
  object: "a group of fields",
  record: "a group of fields",
};

function typeName(expected: string): string {
  return TYPE_NAMES[expected] ?? expected;
}

function sentences(first: string, second: string): string {
  return first.endsWith("?") ? `${first} ${second}` : `${first}. ${second}`;
}

function entries(count: number | bigint): string {
  return Number(count) === 1 ? "entry" : "entries";
}

function show(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object" && value !== null) return "a group of fields";
  if (typeof value === "number") return String(value);
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
