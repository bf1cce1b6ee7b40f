/**
 * Questions with their answers, and solved ones with a rationale, read from a data file of any format.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { isObject } from "../../base/json.ts";
import { openDataFile } from "../../text/read/open.ts";
import { type FileRecord, missingColumn } from "../../text/read/records.ts";
import { DatasetError, describe } from "../../text/read/rows.ts";

/** A question whose answer is known. */
export interface Question {
  readonly question: string;
  readonly answer: string;
  /** `FILE:LINE`, as errors name it. */
  readonly where: string;
}

/** A question with its answer and why that is the answer. */
export interface SolvedExample extends Question {
  readonly rationale: string;
}

/** What is read of a row. */
export type QuestionPart = "question" | "answer" | "rationale";

/** In which columns the parts are, where these have other names. */
export type QuestionColumns = { readonly [part in QuestionPart]?: string };

/** Faulty lines that are told before reading stops. */
const MOST_PROBLEMS = 10;

/**
 * Reads questions.
 *
 * @throws {DatasetError} a row without a question or an answer; the first ten lines are told
 * @throws {InputError} the file cannot be read, or has no rows
 */
export async function readQuestions(path: string, columns: QuestionColumns = {}): Promise<Question[]> {
  const rows = await readParts(path, ["question", "answer"], columns);
  return rows.map(({ parts: [question, answer], where }) => ({
    question: question!,
    answer: answer!,
    where,
  }));
}

/** Reads solved examples. @throws as {@linkcode readQuestions}, also where there is no rationale */
export async function readSolved(path: string, columns: QuestionColumns = {}): Promise<SolvedExample[]> {
  const rows = await readParts(path, ["question", "answer", "rationale"], columns);
  return rows.map(({ parts: [question, answer, rationale], where }) => ({
    question: question!,
    answer: answer!,
    rationale: rationale!,
    where,
  }));
}

async function readParts(
  path: string,
  parts: readonly QuestionPart[],
  columns: QuestionColumns,
): Promise<{ parts: string[]; where: string }[]> {
  const wanted = parts.map((part) => columns[part] ?? part);
  const file = await openDataFile(path);
  const rows: { parts: string[]; where: string }[] = [];
  const problems: { source: { file: string; line: number }; message: string }[] = [];
  for await (const batch of file.records({ wanted })) {
    for (const record of batch) {
      const source = { file: record.file ?? path, line: record.line };
      const found = partsOf(record, wanted);
      if (typeof found === "string") problems.push({ source, message: found });
      else rows.push({ parts: found, where: `${source.file}:${source.line}` });
      if (problems.length >= MOST_PROBLEMS) break;
    }
    if (problems.length >= MOST_PROBLEMS) break;
  }
  if (problems.length > 0) {
    throw new DatasetError(
      path,
      problems,
      problems.length >= MOST_PROBLEMS,
      `Each row must have ${wanted.join(", ")}, all filled. --columns says which columns are meant: ` +
        "--columns question=body,answer=key",
    );
  }
  if (rows.length === 0) {
    throw new InputError("there are no rows in it", {
      where: path,
      hint: `Write one object a line, with ${wanted.join(", ")}.`,
    });
  }
  return rows;
}

/** The parts of a row, without the space around them; or what is wrong with it. */
function partsOf(record: FileRecord, wanted: readonly string[]): string[] | string {
  if ("problem" in record) return record.problem;
  const { value } = record;
  if (!isObject(value)) return `expected a JSON object, found ${describe(value)}`;
  const parts: string[] = [];
  for (const name of wanted) {
    if (!Object.hasOwn(value, name)) return missingColumn(name, Object.keys(value));
    const part = value[name];
    if (typeof part !== "string" && typeof part !== "number" && typeof part !== "boolean") {
      return `${name} must be a text or a number, found ${describe(part)}`;
    }
    const text = String(part).trim();
    if (text === "") return `${name} is empty`;
    if (!text.isWellFormed()) return `${name} holds half of a surrogate pair (a broken \\u escape)`;
    parts.push(text);
  }
  return parts;
}
