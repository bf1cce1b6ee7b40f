/**
 * What the readers of all formats give: the records of a file in its order, before it is known what they mean.
 *
 * @module
 */
import { nearest } from "../../base/did_you_mean.ts";
import { InputError } from "../../base/errors.ts";

/** One record: its value, or why it has none. */
export type FileRecord =
  & {
    /** Line that it begins at, or its number in a file without lines; from 1. */
    readonly line: number;
    /** The file that it is in, where there are several. */
    readonly file?: string;
  }
  & ({ readonly value: unknown } | { readonly problem: string });

/** Records in pieces, because waiting for each one takes longer than reading it. */
export type RecordBatches = AsyncIterable<readonly FileRecord[]>;

/** Columns that a row may be read from where nothing says what columns mean. */
export const ROW_COLUMNS: readonly string[] = [
  "text",
  "prompt",
  "completion",
  "chosen",
  "rejected",
  "messages",
  "tools",
  "id",
  "source",
];

/**
 * Says which columns there are, and which one may have been meant.
 *
 * @example
 * ```ts ignore
 * missingColumn("question", ["Question", "answer"]);
 * // there is no column "question"; there are: "Question", "answer"; did you mean "Question"?
 * ```
 */
export function missingColumn(name: string, there: readonly string[]): string {
  const shown = there.slice(0, 12).map((column) => JSON.stringify(column)).join(", ");
  const more = there.length > 12 ? ` and ${there.length - 12} more` : "";
  const meant = nearest(name, there);
  return `there is no column ${JSON.stringify(name)}; there are: ${shown || "none"}${more}` +
    (meant === undefined ? "" : `; did you mean ${JSON.stringify(meant)}?`);
}

/**
 * Checks the columns of a table before a row of it is read.
 *
 * @param wanted Columns that are asked for by name; some of {@linkcode ROW_COLUMNS} have to be there when absent
 * @throws {InputError} one is missing
 */
export function checkColumns(file: string, there: readonly string[], wanted?: readonly string[]): void {
  const missing = wanted?.find((name) => !there.includes(name));
  if (missing !== undefined) {
    throw new InputError(missingColumn(missing, there), {
      where: file,
      hint: "Correct data.columns, which says from which column each part of a row is read.",
    });
  }
  if (wanted || there.some((name) => ["text", "prompt", "completion", "chosen", "messages"].includes(name))) {
    return;
  }
  throw new InputError(
    `has neither text, nor prompt and completion, nor messages, nor chosen and rejected; its columns are: ${
      there.slice(0, 12).map((name) => JSON.stringify(name)).join(", ") || "none"
    }`,
    {
      where: file,
      hint: "Say in data.columns which of them are meant, such as {prompt: question, completion: answer}.",
    },
  );
}
