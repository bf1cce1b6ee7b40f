/**
 * Privileged text: what a teacher reads before what the student reads, such as a hint or the answer (learning using privileged information,
 * Vapnik and Vashist, Neural Networks 22, 2009; context distillation, Snell et al., arXiv 2209.15189).
 *
 * The teacher's tokens are the student's with some put in between, so the two have the same tokens to predict after them.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";
import type { DatasetRow, RowSource } from "./read/rows.ts";

/** Tokens that the teacher alone reads. */
export interface PrivilegedTokens {
  /** How many of the sample's tokens stand before them. */
  readonly at: number;
  readonly ids: Int32Array;
}

/** A sample's tokens as the teacher reads them. */
export function privilegedIds(ids: Int32Array, { at, ids: own }: PrivilegedTokens): Int32Array {
  const all = new Int32Array(ids.length + own.length);
  all.set(ids.subarray(0, at));
  all.set(own, at);
  all.set(ids.subarray(at), at + own.length);
  return all;
}

/** A row of which the privileged text is a part: a conversation has it before what its user says first. */
export function withPrivileged(row: DatasetRow, text: string): DatasetRow {
  if (row.shape === "prompt") return { ...row, prompt: text + row.prompt };
  if (row.shape !== "messages") throw new RangeError(`a row of ${row.shape} is no conversation`);
  const first = row.messages.findIndex(({ role }) => role === "user");
  if (first < 0) {
    throw new InputError("the conversation has privileged text, but no user whose turn it could stand in", {
      where: `${row.source.file}:${row.source.line}`,
      hint: "Add a user's turn, or take the text out of the row.",
    });
  }
  const messages = row.messages.map((turn, i) =>
    i === first ? { ...turn, content: text + turn.content } : turn
  );
  return { ...row, messages };
}

/**
 * What one encoding of a conversation has more than another.
 *
 * @throws {InputError} they differ by more than tokens put in at one place
 */
export function insertion(
  student: Int32Array,
  teacher: Int32Array,
  { file, line }: RowSource,
): PrivilegedTokens {
  const count = teacher.length - student.length;
  let at = 0;
  while (at < student.length && student[at] === teacher[at]) at++;
  if (count <= 0 || student.subarray(at).some((id, i) => id !== teacher[at + count + i])) {
    throw new InputError(
      "the privileged text and what follows it have tokens in common, or the chat template changes it",
      {
        where: `${file}:${line}`,
        hint: "End the privileged text with a line break, and begin it with a letter or a digit.",
      },
    );
  }
  return { at, ids: teacher.slice(at, at + count) };
}
