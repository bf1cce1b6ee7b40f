/**
 * What a student trains on: for each question a row with its answer, and one for each rationale (TinyLLM, arXiv 2402.04616).
 *
 * @module
 */
import type { Question } from "./questions.ts";

/** A text that a teacher wrote of a question. */
export interface RationaleText {
  readonly text: string;
  /** Whether the teacher ended it, rather than the limit. */
  readonly finished: boolean;
}

/** How rows are made. */
export interface RowOptions {
  /** Who wrote the rationales: the `source` of their rows. */
  readonly source: string;
  /** What stands before a question whose answer is asked for, and whose rationale is. */
  readonly answerPrefix: string;
  readonly rationalePrefix: string;
  /** Writes no rows of answers, which a file of another teacher has. */
  readonly withoutAnswers?: boolean;
  /** Leaves out rationales that do not hold the answer, and those that the limit cut. */
  readonly dropWithoutAnswer?: boolean;
  readonly dropUnfinished?: boolean;
}

/** A row of prompt and completion. */
export interface RationaleRow {
  readonly prompt: string;
  readonly completion: string;
  readonly source: string;
}

/** What became of the rationales. */
export interface RationaleCounts {
  questions: number;
  /** In the file, and how many questions have none. */
  rationales: number;
  questionsWithout: number;
  /** Left out: nothing was written, or the same as before. */
  empty: number;
  repeated: number;
  /** Cut by the limit; not holding the answer. Left out or not, as was asked for. */
  unfinished: number;
  withoutAnswer: number;
}

/** The source of rows with answers. */
export const ANSWER_SOURCE = "answer";

/**
 * Rows of all questions, in their order.
 *
 * @param texts of each question
 */
export function rationaleRows(
  questions: readonly Question[],
  texts: (index: number) => readonly RationaleText[],
  options: RowOptions,
): { rows: RationaleRow[]; counts: RationaleCounts } {
  const rows: RationaleRow[] = [];
  const counts: RationaleCounts = {
    ...{ questions: questions.length, rationales: 0, questionsWithout: 0 },
    ...{ empty: 0, repeated: 0, unfinished: 0, withoutAnswer: 0 },
  };
  questions.forEach(({ question, answer }, index) => {
    if (!options.withoutAnswers) {
      rows.push({
        prompt: options.answerPrefix + question,
        completion: ` ${answer}`,
        source: ANSWER_SOURCE,
      });
    }
    const kept = new Set<string>();
    for (const { text, finished } of texts(index)) {
      // Half of a character, which a cut text may end with, is in no dataset.
      const rationale = withoutThoughts(text.toWellFormed()).trim();
      if (rationale === "") {
        counts.empty++;
        continue;
      }
      if (kept.has(rationale)) {
        counts.repeated++;
        continue;
      }
      const holds = holdsAnswer(rationale, answer);
      if (!finished) counts.unfinished++;
      if (!holds) counts.withoutAnswer++;
      if (!holds && options.dropWithoutAnswer || !finished && options.dropUnfinished) continue;
      kept.add(rationale);
      rows.push({
        prompt: options.rationalePrefix + question,
        completion: ` ${rationale}`,
        source: options.source,
      });
    }
    counts.rationales += kept.size;
    if (kept.size === 0) counts.questionsWithout++;
  });
  return { rows, counts };
}

/** What a model that thinks first says after it; nothing, where it never came to an end. */
export function withoutThoughts(text: string): string {
  const end = text.lastIndexOf("</think>");
  if (end >= 0) return text.slice(end + "</think>".length);
  return text.trimStart().startsWith("<think>") ? "" : text;
}

/** Scripts that put no space between words. */
const UNSPACED = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]/u;

/**
 * Whether a text has an answer in it as words of its own: case, space and commas within numbers do not count.
 *
 * @example
 * ```ts
 * holdsAnswer("So he has 1,200 apples.", "1200"); // true
 * holdsAnswer("So he has 12.5.", "12"); // false
 * ```
 */
export function holdsAnswer(text: string, answer: string): boolean {
  const plain = (value: string) =>
    value.normalize("NFKC").toLowerCase().replace(/(?<=\d),(?=\d{3}(?!\d))/g, "").replace(/\s+/g, " ").trim();
  // An answer may be a sentence, whose end another punctuation may take in the rationale.
  const wanted = plain(answer).replace(/(?<=[\p{L}\p{N}])[.!]$/u, "");
  const begins = /^[\p{L}\p{N}]/u.test(wanted) && !UNSPACED.test(wanted[0]!);
  const ends = /[\p{L}\p{N}]$/u.test(wanted) && !UNSPACED.test(wanted.at(-1)!);
  const number = String.raw`\d[.]`;
  const pattern = (begins ? String.raw`(?<![\p{L}\p{N}])(?<!${number})` : "") + RegExp.escape(wanted) +
    (ends ? String.raw`(?![\p{L}\p{N}])(?![.]\d)` : "");
  return new RegExp(pattern, "u").test(plain(text));
}
