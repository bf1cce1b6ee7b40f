/**
 * Multiple-choice questions: JSON Lines of `{"prompt", "choices", "answer"}`, with the answer as a number from 0 or as one of the choices.
 * A model's answer is the choice whose tokens have the highest mean log-probability behind the prompt; of equal ones the first.
 *
 * @module
 */
import { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { unreadable } from "../../formats/files.ts";
import { DatasetError, type RowSource } from "../../text/dataset.ts";
import { type EncodedSample, encodeRow } from "../../text/encode.ts";
import { IGNORED_LABEL } from "../../text/packing.ts";
import type { TextTokenizer } from "../../text/tokenizer.ts";
import type { SubsetEvaluator } from "./subset_evaluator.ts";

/** A question; prompt and choice stand together as one text. */
export interface Question {
  readonly prompt: string;
  readonly choices: readonly string[];
  /** Number of the right choice. */
  readonly answer: number;
  readonly source: RowSource;
}

/** A question's choices as samples in which the choice alone is supervised. */
export interface EncodedQuestion {
  readonly choices: readonly EncodedSample[];
  readonly answer: number;
}

const line = z.strictObject({
  id: z.unknown().optional(),
  prompt: z.string(),
  choices: z.array(z.string().min(1)).min(2),
  answer: z.union([z.number().int().min(0), z.string()]),
}).refine(({ choices }) => new Set(choices).size === choices.length, {
  path: ["choices"],
  error: "names a choice twice",
}).refine(({ choices, answer }) => placeOf(answer, choices) !== undefined, {
  path: ["answer"],
  error: "is none of the choices: give its number from 0, or its text",
});

function placeOf(answer: number | string, choices: readonly string[]): number | undefined {
  const place = typeof answer === "number" ? answer : choices.indexOf(answer);
  return place in choices ? place : undefined;
}

const FORM = 'Each line must be a JSON object: {"prompt": "2 + 2 =", "choices": [" 3", " 4"], "answer": 1}.';

/**
 * Reads a file of questions.
 *
 * @throws {InputError} no such file, or no question in it
 * @throws {DatasetError} faulty lines
 */
export async function openQuestions(path: string): Promise<Question[]> {
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    throw unreadable(path, error);
  }
  const questions: Question[] = [];
  const problems: { source: RowSource; message: string }[] = [];
  for (const [i, written] of text.split("\n").entries()) {
    if (written.trim() === "") continue;
    const source = { file: path, line: i + 1 };
    let value: unknown;
    try {
      value = JSON.parse(written);
    } catch (error) {
      problems.push({ source, message: `not valid JSON: ${(error as Error).message}` });
      continue;
    }
    const { data, error } = line.safeParse(value);
    if (data) {
      const { prompt, choices, answer } = data;
      questions.push({ prompt, choices, answer: placeOf(answer, choices)!, source });
    } else {
      const said = error.issues.map((issue) => `${issue.path.join(".") || "the line"}: ${issue.message}`);
      problems.push({ source, message: said.join("; ") });
    }
  }
  if (problems.length > 0) throw new DatasetError(path, problems.slice(0, 20), problems.length > 20, FORM);
  if (questions.length === 0) throw new InputError("there are no questions", { where: path, hint: FORM });
  return questions;
}

/**
 * Encodes questions.
 *
 * @throws {InputError} where a prompt with a choice is longer than the context, or a choice is no token of its own
 */
export function encodeQuestions(
  questions: readonly Question[],
  tokenizer: TextTokenizer,
  contextLength: number,
): EncodedQuestion[] {
  return questions.map(({ prompt, choices, answer, source }) => ({
    answer,
    choices: choices.map((completion) => {
      const sample = encodeRow({ shape: "prompt", prompt, completion, source }, {
        ...{ tokenizer, contextLength, mask: "completion", endToken: "none" },
      });
      const where = `${source.file}:${source.line}`;
      if (sample.ids.length > contextLength) {
        throw new InputError(
          `the prompt with ${
            JSON.stringify(completion)
          } has ${sample.ids.length} tokens, more than ${contextLength}`,
          { where, hint: "Shorten it, or raise --context-length." },
        );
      }
      if (!sample.supervised.includes(1)) {
        throw new InputError(`the choice ${JSON.stringify(completion)} has no token to predict`, {
          where,
          hint: "Give the prompt at least one character.",
        });
      }
      return sample;
    }),
  }));
}

/**
 * The share of questions that a subset of layers answers rightly. A question with a choice whose log-probability is not finite counts as wrong.
 *
 * @param evaluator Over the choices of all questions
 */
export async function choiceAccuracy(
  evaluator: SubsetEvaluator,
  questions: readonly EncodedQuestion[],
  kept: readonly number[],
): Promise<number> {
  const losses = new Map<EncodedSample, number>();
  await evaluator.rows(kept, "loss", ({ members, segment, label }, [rows]) => {
    const sums = new Float64Array(members.length);
    const counts = new Int32Array(members.length);
    label.forEach((label, t) => {
      if (label === IGNORED_LABEL) return;
      sums[segment[t]!]! += rows![t]!;
      counts[segment[t]!]!++;
    });
    members.forEach((sample, s) => losses.set(sample, sums[s]! / counts[s]!));
  });
  const right = questions.filter(({ choices, answer }) => {
    const means = choices.map((choice) => losses.get(choice)!);
    return means.every(Number.isFinite) && means.indexOf(Math.min(...means)) === answer;
  });
  return right.length / questions.length;
}
