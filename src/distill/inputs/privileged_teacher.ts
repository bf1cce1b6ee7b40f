/**
 * A teacher that is told more than the student: what of the data is known once all rows are encoded.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { count } from "../../base/units.ts";
import type { EncodedSample } from "../../text/encode.ts";
import type { Recipe } from "../recipe/recipe.ts";

/** What is planned from the data. */
export interface PrivilegedTeacher {
  /** Tokens of the longest privileged text. */
  readonly longest: number;
  /** Privileged tokens for each of the student's, over all samples. */
  readonly ratio: number;
  /** Samples that have some. */
  readonly samples: number;
}

/** Rows of the rotary tables of a run: as many as the longest sample has tokens, with what the teacher alone reads. */
export function tableRows(
  { contextLength }: Pick<Recipe["data"], "contextLength">,
  privileged: Pick<PrivilegedTeacher, "longest"> | undefined,
): number {
  return contextLength + (privileged?.longest ?? 0);
}

/** Faulty rows that are named. */
const MOST_NAMED = 10;

/**
 * Looks through all samples.
 *
 * @param positions That the teacher was trained for
 * @throws {InputError} no row has privileged text, or more than the teacher can read
 */
export function privilegedTeacher(
  { data, train }: Pick<Recipe, "data" | "train">,
  samples: readonly EncodedSample[],
  positions: number,
): PrivilegedTeacher {
  let [own, others, longest, told] = [0, 0, 0, 0];
  const tooLong: string[] = [];
  for (const { ids, privileged, source: { file, line } } of samples) {
    own += ids.length;
    if (!privileged) continue;
    const { length } = privileged.ids;
    [others, longest, told] = [others + length, Math.max(longest, length), told + 1];
    // The student's own texts may be as long as a sample can be.
    const most = train.onPolicy ? data.contextLength : ids.length;
    if (most + length > positions) tooLong.push(`${file}:${line}: ${most + length} tokens`);
  }
  if (told === 0) {
    throw new InputError("the teacher is to be told more than the student, but no row has privileged text", {
      where: "recipe teacher.privileged",
      hint: 'Add "privileged": "..." to rows, or name its column in data.columns.privileged.',
    });
  }
  if (tooLong.length === 0) return { longest, ratio: others / Math.max(1, own), samples: told };
  const shown = tooLong.slice(0, MOST_NAMED);
  if (tooLong.length > shown.length) shown.push(`and ${tooLong.length - shown.length} more`);
  const those = tooLong.length === 1 ? "1 sample has" : `${tooLong.length} samples have`;
  throw new InputError(
    [
      `${those} more tokens with the privileged text than the ${positions} that the teacher was trained for:`,
      ...shown,
    ]
      .join("\n  "),
    { where: "recipe teacher.privileged", hint: "Shorten that text, or lower data.contextLength." },
  );
}

/** How the data came out, for people. */
export function privilegedText({ samples, longest, ratio }: PrivilegedTeacher, all: number): string {
  return `the teacher is told more than the student in ${count(samples)} of ${count(all)} samples, at most ${
    count(longest)
  } tokens, ${ratio.toFixed(2)} for each of the student's`;
}
