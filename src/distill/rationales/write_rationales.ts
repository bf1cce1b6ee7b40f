/**
 * Rationales of questions, written by a teacher that is told the true answers (TinyLLM, arXiv 2402.04616): several of each, resumable.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { system } from "../../base/system.ts";
import { InputError } from "../../base/errors.ts";
import { writeTextAtomically } from "../../formats/files.ts";
import type { AskedText, Author } from "./authors.ts";
import type { Question, SolvedExample } from "./questions.ts";
import { RationaleJournal } from "./rationale_journal.ts";
import { rationalePrompt, type RationaleTemplate } from "./rationale_prompt.ts";
import { type RationaleCounts, rationaleRows, type RowOptions } from "./rationale_rows.ts";

/** What {@linkcode writeRationales} does. */
export interface RationaleOptions extends RowOptions {
  readonly questions: readonly Question[];
  readonly examples: readonly SolvedExample[];
  readonly template: RationaleTemplate;
  /** Rationales of each question. */
  readonly perQuestion: number;
  readonly author: Author;
  /** File of rows; texts are in `OUTPUT.part` until all have come. */
  readonly output: string;
  /** Told how many texts there are, of how many. */
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** What came of it. */
export interface WrittenRationales extends RationaleCounts {
  readonly output: string;
  /** Rows of the file. */
  readonly rows: number;
  /** Texts that were there before. */
  readonly resumed: number;
}

/** Where texts are until all have come. */
export function partPath(output: string): string {
  return `${output}.part`;
}

/**
 * Asks for what is missing, and writes all rows once nothing is.
 *
 * @throws {InputError} the texts that are there were begun with other settings, or none of them is of use
 * @throws whatever the author does; what came so far is kept, and the same call goes on
 */
export async function writeRationales(options: RationaleOptions): Promise<WrittenRationales> {
  const { questions, examples, template, perQuestion, author, output, onProgress, signal } = options;
  const journal = await RationaleJournal.open(partPath(output), author.settings);
  try {
    const wanted = wantedTexts(questions, (one) => rationalePrompt(template, one, examples), perQuestion);
    const missing = wanted.filter(({ key, n }) => journal.text(key, n) === undefined);
    const resumed = wanted.length - missing.length;
    let done = resumed;
    onProgress?.(done, wanted.length);
    if (missing.length > 0) {
      await author.write(missing, {
        signal,
        onText(asked, text) {
          const { key, n } = wanted[asked.number]!;
          journal.keep(key, n, text);
          onProgress?.(++done, wanted.length);
        },
      });
    }
    const texts = (index: number) =>
      wanted.slice(index * perQuestion, (index + 1) * perQuestion).map(({ key, n }) => {
        const text = journal.text(key, n);
        if (text === undefined) throw new Error(`text ${n} of ${questions[index]!.where} has not come`);
        return text;
      });
    const { rows, counts } = rationaleRows(questions, texts, options);
    if (counts.rationales === 0) {
      throw new InputError(
        `none of ${wanted.length} rationales is of use: ${counts.empty} are empty, ${counts.withoutAnswer} do not hold ` +
          `the answer, ${counts.unfinished} were cut by the limit`,
        {
          where: journal.path,
          hint: "Look at the texts there; the teacher may need --chat, --examples, or more --tokens.",
        },
      );
    }
    await writeTextAtomically(output, rows.map((row) => JSON.stringify(row) + "\n").join(""));
    await system.remove(journal.path);
    return { output, rows: rows.length, resumed, ...counts };
  } finally {
    journal.close();
  }
}

/** A text that is wanted, and the name under which it is kept: its prompt's hash, and which of that prompt's texts it is. */
interface WantedText extends AskedText {
  readonly key: string;
  readonly n: number;
}

/** Texts of all questions, in their order. A question that is there twice gets twice as many. */
function wantedTexts(
  questions: readonly Question[],
  promptOf: (question: Question) => string,
  perQuestion: number,
): WantedText[] {
  const counts = new Map<string, number>();
  let number = 0;
  return questions.flatMap((question) => {
    const prompt = promptOf(question);
    const key = createHash("sha256").update(prompt).digest("hex").slice(0, 32);
    return Array.from({ length: perQuestion }, () => {
      const n = counts.get(key) ?? 0;
      counts.set(key, n + 1);
      return { number: number++, prompt, where: question.where, key, n };
    });
  });
}
