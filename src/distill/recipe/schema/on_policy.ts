/**
 * What the student writes while it is trained, to learn from the teacher on its own texts.
 *
 * @module
 */
import { z } from "zod";
import type { Recipe } from "../recipe.ts";
import { cacheField, cacheOf, servedTeachers, teachersOf } from "../teachers.ts";
import { count, countOrNone, positive } from "./fields.ts";

const alarms = z.strictObject({
  shortest: z.number().min(0).default(1.5).describe(
    "Mean tokens of an answer, its end token with them, below which answers collapse; 0: never",
  ),
  atLimit: z.number().min(0).max(1).default(1).describe(
    "Share of answers that the limit cuts off from which on they never end; 0: never",
  ),
  entropy: z.number().min(0).default(0.02).describe(
    "Mean entropy of the student at the tokens it writes, in nats, below which it has but one answer; 0: never",
  ),
  repetition: z.number().min(0).max(1).default(0.5).describe(
    "Share of n-grams that an answer has had before, above which answers go round in circles; 1: never",
  ),
  ngram: count.default(4).describe("Tokens of an n-gram"),
});

export const onPolicy = z.strictObject({
  every: count.default(1).describe(
    "Steps between rollouts: the student as it is then writes the answers of so many steps",
  ),
  ratio: z.number().gt(0).max(1).default(0.5).describe(
    "Share of the samples of a batch that leave for answers of the student to their prompts, as many as fit",
  ),
  tokens: count.default(128).describe(
    "Most new tokens of an answer, as far as data.contextLength allows; longer ones leave room for fewer",
  ),
  promptTokens: count.default(16).describe(
    "Tokens of a text that are its prompt, where no part of it is one",
  ),
  temperature: z.number().min(0).default(1).describe(
    "Sampling temperature of the answers; 0: the likeliest token always",
  ),
  topK: countOrNone.default(0).describe("Answers are drawn from so many likeliest tokens; 0: all"),
  topP: z.number().gt(0).max(1).default(1).describe(
    "Answers are drawn from the likeliest tokens of this total probability",
  ),
  together: count.default(8).describe(
    "Answers written at once; each takes memory for data.contextLength tokens",
  ),
  importance: z.strictObject({
    max: positive.default(2).describe("Largest weight of a token"),
  }).optional().describe(
    "Weighs each token of an answer by what the student now makes of it over what it made of it when it wrote it; of use where every is above 1",
  ),
  alarms: alarms.prefault({}).describe("When a run warns of what the student writes"),
});

/** What a run that learns from the student's own texts cannot have. */
export function checkOnPolicy(
  { teacher, student, data, train }: Pick<Recipe, "teacher" | "student" | "data" | "train">,
  wrong: (path: PropertyKey[], message: string) => void,
): void {
  const { onPolicy } = train;
  if (!onPolicy) return;
  const kept = teachersOf(teacher).findIndex((_, i) => cacheOf(teacher, i));
  if (kept >= 0) {
    wrong(
      cacheField(teacher, kept).split("."),
      "holds what the teacher makes of texts that are there before training, and the answers of train.onPolicy are not: " +
        "leave out one of the two",
    );
  }
  if (servedTeachers(teacher).length > 0) {
    wrong(
      ["train", "onPolicy"],
      "needs a teacher that is there while it trains; one behind a server is asked once, before training",
    );
  }
  if (student.shapes) wrong(["train", "onPolicy"], "cannot be combined with student.shapes");
  if (onPolicy.importance && onPolicy.temperature === 0) {
    wrong(
      ["train", "onPolicy", "importance"],
      "weighs tokens by the probabilities they were drawn with, and at temperature 0 none is drawn",
    );
  }
  if (onPolicy.promptTokens >= data.contextLength) {
    wrong(
      ["train", "onPolicy", "promptTokens"],
      `must be below data.contextLength (${data.contextLength}), so that there is room for an answer`,
    );
  }
}
