/**
 * A task: what a model is asked, of which data, and how its answers count. Written as a YAML or JSON file, or as a part of a recipe; the
 * layouts of known data sets are built in.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename, dirname, extname, isAbsolute, resolve } from "@std/path";
import { z } from "zod";
import { system } from "../../base/system.ts";
import { didYouMean } from "../../base/did_you_mean.ts";
import { InputError } from "../../base/errors.ts";
import { isObject } from "../../base/json.ts";
import { describeIssues, type FieldSchema } from "../../base/schema_problems.ts";
import { readWrittenFile } from "../../formats/written_file.ts";
import { CHOICE_SCORES } from "../scores/choices.ts";
import { LAYOUT_NAMES, LAYOUTS } from "./layouts.ts";
import { templateProblem } from "./template.ts";

const template = z.string().superRefine((text, context) => {
  const problem = templateProblem(text);
  if (problem) context.addIssue({ code: "custom", message: problem });
});
/** The first whose fields are all filled is taken. */
const templates = z.union([template, z.array(template).min(1)]);
const count = z.int().min(1);

const shared = {
  name: z.string().regex(/^[\w.-]{1,60}$/, "must be letters, digits, _, . and -, at most 60 of them")
    .optional()
    .describe(
      "What reports call the task; when absent the name of its file, its layout, or of its data with the kind",
    ),
  layout: z.enum(LAYOUT_NAMES).optional().describe(
    "A known data set's: its fields are filled in where they are absent",
  ),
  data: z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]).describe(
    "Files of rows in any format of datasets, .txt files that are one text, or folders of such",
  ),
  columns: z.array(z.string().min(1)).min(1).optional().describe(
    "Names of a CSV's columns, where its first line has none",
  ),
  limit: count.optional().describe("Most rows used"),
  bos: z.boolean().optional().describe(
    "Whether texts begin with the BOS token; when absent as the tokenizer says, or yes where it has one that is no end token",
  ),
};
const text = {
  text: template.optional().describe(
    "What is predicted; when absent the field text, or completion behind prompt",
  ),
  context: templates.optional().describe("What stands before it and is not predicted"),
  window: z.strictObject({
    length: z.int().min(2).optional().describe(
      "Tokens that a prediction may look back on; the model's context when absent",
    ),
    stride: count.optional().describe("Tokens from one window to the next; the length when absent"),
  }).default({}).describe("How texts that are longer than the context are read"),
};
const written = {
  prompt: templates.describe("What the model is asked"),
  chat: z.boolean().default(false).describe(
    "Whether the prompt is a user's turn in the model's chat template",
  ),
  maxTokens: count.default(256).describe("Most tokens of an answer"),
  stop: z.array(z.string().min(1)).default([]).describe("Texts that end an answer; they are no part of it"),
};

const SCHEMAS = {
  perplexity: z.strictObject({ ...shared, kind: z.literal("perplexity"), ...text }),
  agreement: z.strictObject({
    ...{ ...shared, kind: z.literal("agreement"), ...text },
    topK: z.int().min(1).max(32).default(5).describe("Likeliest tokens of both models that are compared"),
  }),
  "multiple-choice": z.strictObject({
    ...{ ...shared, kind: z.literal("multiple-choice") },
    context: templates.describe("What stands before a choice"),
    choices: z.union([template, z.array(template).min(2)]).describe(
      "The choices: a template each, or one field that holds a list, such as {choices}",
    ),
    delimiter: z.string().default(" ").describe("What stands between context and choice"),
    answer: template.describe("The right choice: its label, its number from 0, its text, or a letter"),
    labels: z.union([template, z.array(z.string())]).optional().describe(
      "What the answer calls the choices, in their order, where that is no number from 0",
    ),
    score: z.enum(CHOICE_SCORES).default("per-byte").describe(
      "What decides: the sum of log-probabilities, or that by tokens or bytes",
    ),
  }),
  "exact-match": z.strictObject({
    ...{ ...shared, kind: z.literal("exact-match"), ...written },
    answer: template.describe("The right answer, or a text that it is extracted from"),
    extract: z.enum(["number", "text"]).default("number").describe(
      "What is compared: the number that an answer comes to, or the text without white space around it",
    ),
  }),
  rouge: z.strictObject({
    ...{ ...shared, kind: z.literal("rouge"), ...written },
    reference: template.describe("A good answer; {$teacher} is what the teacher writes"),
    stemmed: z.boolean().default(true).describe("Whether words are compared by their stems"),
  }),
} as const;

/** What tasks measure. */
const TASK_KINDS = ["perplexity", "agreement", "multiple-choice", "exact-match", "rouge"] as const;

/** See {@linkcode TASK_KINDS}. */
export type TaskKind = typeof TASK_KINDS[number];

type Parsed<K extends TaskKind> = Omit<z.output<typeof SCHEMAS[K]>, "name" | "data"> & {
  readonly name: string;
  readonly data: readonly string[];
};

/** How well a model predicts texts. */
export type PerplexityTask = Parsed<"perplexity">;

/** How near a model is to its teacher on texts. */
export type AgreementTask = Parsed<"agreement">;

/** Which choice a model finds the likeliest. */
export type MultipleChoiceTask = Parsed<"multiple-choice">;

/** Whether what a model writes comes to the right answer. */
export type ExactMatchTask = Parsed<"exact-match">;

/** How much what a model writes has in common with a reference. */
export type RougeTask = Parsed<"rouge">;

/** A checked task with its defaults. */
export type EvaluationTask = PerplexityTask | AgreementTask | MultipleChoiceTask | ExactMatchTask | RougeTask;

/** The field that stands for what the teacher writes. */
export const TEACHER_FIELD = "$teacher";

/** Whether the models write texts for a task. */
export function isWritten(task: EvaluationTask): task is ExactMatchTask | RougeTask {
  return task.kind === "exact-match" || task.kind === "rouge";
}

/** Whether a task compares with a teacher. */
export function needsTeacher(task: EvaluationTask): boolean {
  return task.kind === "agreement" ||
    (task.kind === "rouge" && task.reference.includes(`{${TEACHER_FIELD}}`));
}

/**
 * Checks a task and fills in its defaults. Paths are left as they are; nothing is opened.
 *
 * @param where How errors name it, such as its file
 * @throws {InputError} with every problem at once
 */
export function parseEvaluationTask(value: unknown, where?: string): EvaluationTask {
  const at = where === undefined ? {} : { where };
  if (!isObject(value)) throw new InputError("a task is a map of fields, such as kind and data", at);
  const layout = LAYOUTS[value.layout as keyof typeof LAYOUTS];
  const whole: Record<string, unknown> = { ...layout?.task, ...value };
  const { kind } = whole;
  if (typeof kind !== "string" || !Object.hasOwn(SCHEMAS, kind)) {
    const near = typeof kind === "string" ? didYouMean(kind, TASK_KINDS) : "";
    const said = kind === undefined ? "is missing; it must be" : "must be";
    const not = kind === undefined ? "" : `, not ${JSON.stringify(kind)}`;
    const layouts = `, or name a layout: ${LAYOUT_NAMES.join(", ")}`;
    throw new InputError(`kind: ${said} one of ${TASK_KINDS.join(", ")}${not}${near}`, {
      ...at,
      hint: `See docs/evaluation.md${layouts}.`,
    });
  }
  const schema = SCHEMAS[kind as TaskKind];
  const { success, data, error } = schema.safeParse(whole);
  if (!success) {
    const fields = z.toJSONSchema(schema, { io: "input" }) as FieldSchema;
    const problems = describeIssues(error.issues, whole, fields);
    throw new InputError(
      problems.map(({ path, message }) => (path ? `${path}: ${message}` : message)).join("\n  "),
      { ...at, hint: "docs/evaluation.md lists the fields of each kind of task." },
    );
  }
  const files = [data.data].flat();
  const [first] = files as [string];
  const name = data.name ?? data.layout ?? `${plainName(first)}-${kind}`;
  return { ...data, data: files, name } as EvaluationTask;
}

/**
 * Reads a task's file. Paths in it are relative to its folder, and come out absolute.
 *
 * @throws {InputError} no such file, or it does not do
 */
export async function loadTask(path: string): Promise<EvaluationTask> {
  const written = await readWrittenFile(path, { kind: "task" });
  const task = parseEvaluationTask(isObject(written) ? { name: plainName(path), ...written } : written, path);
  return withFolder(task, dirname(resolve(path)));
}

/** The name of a file without its ending, as names are written. */
function plainName(path: string): string {
  return basename(path, extname(path)).replaceAll(/[^\w.-]+/g, "-").slice(0, 40);
}

/** The task with data that are looked for in `folder`. */
export function withFolder<T extends EvaluationTask>(task: T, folder: string): T {
  return { ...task, data: task.data.map((path) => (isAbsolute(path) ? path : resolve(folder, path))) };
}

/**
 * The task that a command line names: a file, or a layout or kind with its data, `LAYOUT=PATH`.
 *
 * @throws {InputError} as {@linkcode loadTask}
 */
export async function namedTask(named: string): Promise<EvaluationTask> {
  const [, name, path] = /^([\w-]+)=(.+)$/.exec(named) ?? [];
  if (name === undefined || path === undefined) {
    if (Object.hasOwn(LAYOUTS, named) || (TASK_KINDS as readonly string[]).includes(named)) {
      throw new InputError(`the task ${named} needs its data`, {
        hint: `For example --task ${named}=./${named}.jsonl`,
      });
    }
    return await loadTask(named);
  }
  const isLayout = Object.hasOwn(LAYOUTS, name);
  const task = parseEvaluationTask(
    isLayout ? { layout: name, data: path } : { kind: name, data: path },
    `--task ${named}`,
  );
  return withFolder(task, system.cwd());
}
