/**
 * Log-probabilities of completions: as the OpenAI API has them (`logprobs`), and those of the prompt as vLLM has them (`prompt_logprobs`).
 *
 * @module
 */
import { z } from "@hono/zod-openapi";
import type { ReadScores } from "../../runs/child/told_scores.ts";
import { tokenName } from "../../text/token_texts.ts";

/** JSON has no infinity; vLLM writes this for a token that cannot come. */
const NEVER = -9999;

const byText = z.record(z.string(), z.number());

/** Schema of a choice's `logprobs`. */
export const completionLogProbabilities = z.object({
  tokens: z.array(z.string()),
  token_logprobs: z.array(z.number().nullable()).openapi({
    description:
      "Natural logarithms at temperature 1, over the whole vocabulary; null for a text's first token",
  }),
  top_logprobs: z.array(byText.nullable()).openapi({
    description: "The likeliest tokens of each place, with the one that stands there",
  }),
  text_offset: z.array(z.number().int()).openapi({
    description: "In UTF-16 code units of the choice's text",
  }),
}).openapi("CompletionLogProbabilities");

/** Schema of a choice's `prompt_logprobs`. */
export const promptLogProbabilities = z.array(
  z.record(
    z.string(),
    z.object({
      logprob: z.number(),
      rank: z.number().int().openapi({ description: "1 is the likeliest" }),
      decoded_token: z.string(),
    }),
  ).nullable(),
).openapi("PromptLogProbabilities", {
  description: "For each token of the prompt but the first: it and the likeliest ones, by id",
});

/** How `logprobs` are written. */
export interface Written {
  /** Likeliest tokens at each place. */
  readonly top: number;
  /** Whether those of the prompt are there too. */
  readonly echo: boolean;
  /** Tokens as `token_id:ID` in place of their texts, which may be those of several tokens. */
  readonly asIds: boolean;
}

/**
 * `logprobs` of some tokens of a text.
 *
 * @param from first token
 * @param to one past the last
 * @param start where in the decoded text the choice's own begins
 */
export function logProbabilities(
  scores: ReadScores,
  { top, asIds }: Written,
  from: number,
  to: number,
  start: number,
): z.output<typeof completionLogProbabilities> {
  const name = (id: number) => asIds ? tokenName(id) : scores.texts.get(id)!;
  const places = Array.from({ length: to - from }, (_, i) => from + i);
  return {
    tokens: places.map((i) => name(scores.tokens[i]!)),
    token_logprobs: places.map((i) => i === 0 ? null : finite(scores.logProbabilities[i]!)),
    top_logprobs: places.map((i) => i === 0 ? null : topOf(scores, i, top, name)),
    text_offset: places.map((i) => scores.offsets[i]! - start),
  };
}

/** A token whose text is that of a likelier one is named by its id, so that none is lost. */
function topOf(scores: ReadScores, i: number, top: number, name: (id: number) => string) {
  const found: Record<string, number> = Object.create(null);
  for (const { id, logProbability } of likeliest(scores, i, top)) {
    found[name(id) in found ? tokenName(id) : name(id)] = finite(logProbability);
  }
  return found;
}

/** The likeliest tokens at a place and the one that stands there, by falling probability. */
function likeliest(
  { tokens, ranks, logProbabilities, topIds, topLogProbabilities, top }: ReadScores,
  i: number,
  most: number,
) {
  const count = Math.min(most, top);
  const rows = Array.from({ length: count }, (_, k) => ({
    id: topIds[i * top + k]!,
    logProbability: topLogProbabilities[i * top + k]!,
    rank: k + 1,
  }));
  if (ranks[i]! > count) rows.push({ id: tokens[i]!, logProbability: logProbabilities[i]!, rank: ranks[i]! });
  return rows;
}

/** `prompt_logprobs` of a prompt, with so many of the likeliest tokens. */
export function promptScores(scores: ReadScores, top: number): z.output<typeof promptLogProbabilities> {
  return Array.from({ length: scores.promptTokens }, (_, i) =>
    i === 0 ? null : Object.fromEntries(
      likeliest(scores, i, top).map(({ id, logProbability, rank }) => [
        String(id),
        { logprob: finite(logProbability), rank, decoded_token: scores.texts.get(id)! },
      ]),
    ));
}

function finite(value: number): number {
  return Number.isFinite(value) ? value : NEVER;
}
