/**
 * The items of a task: what each row of its data asks.
 *
 * @module
 */
import { DatasetError, type RowSource } from "../../text/dataset.ts";
import { extractedAnswer } from "../scores/extracted_answer.ts";
import { withLayout } from "./layouts.ts";
import { readTaskRows } from "./rows.ts";
import {
  type AgreementTask,
  type EvaluationTask,
  type ExactMatchTask,
  isWritten,
  type MultipleChoiceTask,
  type PerplexityTask,
  type RougeTask,
  TEACHER_FIELD,
} from "./task.ts";
import { fieldOf, filled, firstFilled, type TaskRow, TaskRowError, templateFields } from "./template.ts";

/** A text that is predicted. */
export interface TextItem {
  /** What stands before it and is not. */
  readonly context: string;
  readonly text: string;
  readonly source: RowSource;
}

/** A question with choices. */
export interface ChoiceItem {
  readonly context: string;
  /** Without the delimiter before them. */
  readonly choices: readonly string[];
  /** Number of the right one. */
  readonly answer: number;
  readonly source: RowSource;
}

/** Something that a model answers in writing. */
export interface WrittenItem {
  readonly prompt: string;
  /** The right answer, in the form in which it is compared, or a good one; with the teacher's text in the place of `{$teacher}`. */
  reference(teacher?: string): string;
  readonly source: RowSource;
}

/** What a task asks, by its kind. */
export type TaskItems =
  | { readonly kind: "text"; readonly items: readonly TextItem[] }
  | { readonly kind: "choice"; readonly items: readonly ChoiceItem[] }
  | { readonly kind: "written"; readonly items: readonly WrittenItem[] };

/** Faulty rows that are named. */
const MOST_PROBLEMS = 20;

/**
 * Reads what a task asks.
 *
 * @throws {InputError} data that cannot be read, or without rows
 * @throws {DatasetError} rows that the task's templates do not fit, the first of them by name
 */
export async function readItems(task: EvaluationTask): Promise<TaskItems> {
  const { data, columns, layout, limit } = task;
  const rows = await readTaskRows(data, { columns, limit });
  const problems: { source: RowSource; message: string }[] = [];
  const each = <T>(of: (row: TaskRow, source: RowSource) => T): T[] => {
    const items = rows.flatMap(({ row, source }) => {
      try {
        return [of(withLayout(row, layout), source)];
      } catch (error) {
        if (!(error instanceof TaskRowError)) throw error;
        problems.push({ source, message: error.message });
        return [];
      }
    });
    if (problems.length === 0) return items;
    const hint = `Correct the rows, or what the task "${task.name}" says of them.`;
    throw new DatasetError(
      data.join(", "),
      problems.slice(0, MOST_PROBLEMS),
      problems.length > MOST_PROBLEMS,
      hint,
    );
  };
  if (isWritten(task)) {
    return {
      kind: "written",
      items: each((row, source) => writtenItem(task, row, source)),
    };
  }
  if (task.kind === "multiple-choice") {
    return { kind: "choice", items: each((row, source) => choiceItem(task, row, source)) };
  }
  return { kind: "text", items: each((row, source) => textItem(task, row, source)) };
}

function textItem(
  { text, context }: PerplexityTask | AgreementTask,
  row: TaskRow,
  source: RowSource,
): TextItem {
  const isAnswer = text === undefined && !Object.hasOwn(row, "text") && Object.hasOwn(row, "completion");
  const predicted = filled(text ?? (isAnswer ? "{completion}" : "{text}"), row);
  if (predicted === "") throw new TaskRowError("has no text to predict");
  const before = context ?? (isAnswer && Object.hasOwn(row, "prompt") ? "{prompt}" : undefined);
  return { text: predicted, context: before === undefined ? "" : firstFilled([before].flat(), row), source };
}

function choiceItem(
  { context, choices, labels, answer }: MultipleChoiceTask,
  row: TaskRow,
  source: RowSource,
): ChoiceItem {
  const texts = listOf(choices, row, "choices");
  if (texts.length < 2) throw new TaskRowError(`has ${texts.length} choice, where at least 2 are needed`);
  const empty = texts.indexOf("");
  if (empty >= 0) throw new TaskRowError(`has an empty choice, the ${empty + 1}. of ${texts.length}`);
  const said = filled(answer, row);
  const names = labels === undefined ? undefined : listOf(labels, row, "labels");
  const right = answerPlace(said, texts, names);
  if (right === undefined) {
    const known = names
      ? `the labels ${names.join(", ")}`
      : `a number from 0 to ${texts.length - 1}, a letter or a choice's text`;
    throw new TaskRowError(`has the answer ${JSON.stringify(said)}, which is none of ${known}`);
  }
  return { context: firstFilled([context].flat(), row), choices: texts, answer: right, source };
}

function answerPlace(
  said: string,
  texts: readonly string[],
  labels: readonly string[] | undefined,
): number | undefined {
  const place = labels
    ? labels.indexOf(said)
    : texts.includes(said)
    ? texts.indexOf(said)
    : /^\d+$/.test(said)
    ? Number(said)
    : /^[A-Z]$/.test(said)
    ? said.charCodeAt(0) - 65
    : -1;
  return place in texts ? place : undefined;
}

/** A list of templates, or one field that holds a list of texts. */
function listOf(templates: string | readonly string[], row: TaskRow, what: string): string[] {
  if (typeof templates !== "string") return templates.map((template) => filled(template, row));
  const [field] = templateFields(templates);
  const list = field !== undefined && templates === `{${field}}` ? fieldOf(row, field) : undefined;
  if (Array.isArray(list) && list.every((entry) => typeof entry === "string" || typeof entry === "number")) {
    return list.map(String);
  }
  throw new TaskRowError(`has no list of texts at ${templates}, which is to hold the ${what}`);
}

function writtenItem(task: ExactMatchTask | RougeTask, row: TaskRow, source: RowSource): WrittenItem {
  const prompt = firstFilled([task.prompt].flat(), row);
  if (prompt === "") throw new TaskRowError("has an empty prompt");
  if (task.kind === "rouge") {
    const reference = (teacher?: string) =>
      filled(task.reference, { ...row, [TEACHER_FIELD]: teacher ?? "" });
    // What the row itself lacks is said before any model is asked.
    if (reference("x").trim() === "") throw new TaskRowError("has an empty reference");
    return { prompt, reference, source };
  }
  const answer = filled(task.answer, row);
  const compared = comparedAnswer(answer, task.extract);
  if (compared === null) {
    throw new TaskRowError(`has no number in its answer ${JSON.stringify(answer.slice(0, 80))}`);
  }
  return { prompt, reference: () => compared, source };
}

/** An answer in the form in which it is compared; null where a number is wanted and there is none. */
export function comparedAnswer(text: string, extract: ExactMatchTask["extract"]): string | null {
  return extract === "number" ? extractedAnswer(text) : text.trim();
}
