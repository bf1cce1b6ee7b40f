/**
 * From what a model writes to the choices of a completion, whole or streamed.
 *
 * @module
 */
import type { InferenceEvent } from "../../runs/child/inference.ts";
import { type ReadScores, readScores } from "../../runs/child/told_scores.ts";
import { HttpError } from "../http/http_error.ts";
import { logProbabilities, promptScores, type Written } from "./log_probabilities.ts";

/** What a request says of its choices. */
export interface CompletionRequest {
  readonly prompt: string | readonly number[] | readonly string[] | readonly (readonly number[])[];
  readonly logprobs?: number | null | undefined;
  readonly prompt_logprobs?: number | null | undefined;
  readonly echo?: boolean | null | undefined;
  readonly return_tokens_as_token_ids?: boolean | null | undefined;
}

/** A text that is whole. */
export interface Answer {
  readonly text: string;
  readonly reason: "stop" | "length";
  readonly usage: ReturnType<typeof usageOf>;
  readonly scores: ReadScores | undefined;
}

/** Reads a text to its end. */
export async function whole(events: AsyncIterable<InferenceEvent>): Promise<Answer> {
  let text = "";
  let scores: ReadScores | undefined;
  for await (const event of events) {
    if (event.type === "text") text += event.text;
    else if (event.type === "scores") scores = readScores(event.scores);
    else if (event.type === "end") {
      return { text, reason: reasonOf(event.finishReason), usage: usageOf(event), scores };
    }
  }
  throw new HttpError(500, "the text has no end", { code: "internal" });
}

/** A text that is to be continued, or its token ids. */
export type Prompt = string | { readonly ids: readonly number[] };

/** The prompts of a request, one by one. */
export function promptsOf(prompt: CompletionRequest["prompt"]): Prompt[] {
  if (typeof prompt === "string") return [prompt];
  if (typeof prompt[0] === "number") return [{ ids: prompt as readonly number[] }];
  return (prompt as readonly (string | readonly number[])[]).map((one) =>
    typeof one === "string" ? one : { ids: one }
  );
}

/** What of log-probabilities is wanted. */
export interface Wanted {
  /** Likeliest tokens that are asked of the model; undefined where nothing is. */
  readonly scores: number | undefined;
  readonly logprobs: Written | undefined;
  readonly ofPrompt: number | undefined;
  readonly echo: boolean;
}

/** Reads what a request wants. */
export function wantedOf(
  { logprobs, prompt_logprobs, echo, return_tokens_as_token_ids }: CompletionRequest,
): Wanted {
  const [top, ofPrompt] = [logprobs ?? undefined, prompt_logprobs ?? undefined];
  // An echo of token ids is their text, which scores tell too.
  const isWanted = top !== undefined || ofPrompt !== undefined || echo === true;
  return {
    scores: isWanted ? Math.max(top ?? 0, ofPrompt ?? 0) : undefined,
    logprobs: top === undefined
      ? undefined
      : { top, echo: echo ?? false, asIds: return_tokens_as_token_ids ?? false },
    ofPrompt,
    echo: echo ?? false,
  };
}

/** The text of the prompt that an answer begins with. */
function echoed(prompt: Prompt, { echo }: Wanted, scores: ReadScores | undefined): string {
  if (!echo) return "";
  return typeof prompt === "string" ? prompt : scores!.promptText;
}

/** Of which tokens log-probabilities are told, and where the choice's text begins in what is decoded. */
function toldOf(scores: ReadScores, { echo }: Wanted): { from: number; start: number } {
  const from = echo ? 0 : scores.promptTokens;
  return { from, start: scores.offsets[from]! };
}

/** A choice of an answer that is not streamed. */
export function choiceOf({ text, reason, scores }: Answer, prompt: Prompt, wanted: Wanted, index: number) {
  const { logprobs, ofPrompt } = wanted;
  const { from, start } = scores ? toldOf(scores, wanted) : { from: 0, start: 0 };
  return {
    index,
    text: echoed(prompt, wanted, scores) + text,
    finish_reason: reason,
    logprobs: scores && logprobs
      ? logProbabilities(scores, logprobs, from, scores.tokens.length, start)
      : null,
    ...(scores && ofPrompt !== undefined ? { prompt_logprobs: promptScores(scores, ofPrompt) } : {}),
  };
}

/** The choices of a stream's chunks; what was used comes last. With log-probabilities, a chunk for each token once the text is whole. */
export async function* streamedChoices(
  events: AsyncIterable<InferenceEvent>,
  prompt: Prompt,
  wanted: Wanted,
  index: number,
): AsyncGenerator<object | { usage: ReturnType<typeof usageOf> }> {
  const choice = (text: string, rest: object = {}) => ({
    ...{ index, text, finish_reason: null, logprobs: null },
    ...rest,
  });
  if (wanted.scores === undefined) {
    for await (const event of events) {
      if (event.type === "text") yield choice(event.text);
      if (event.type !== "end") continue;
      yield choice("", { finish_reason: reasonOf(event.finishReason) });
      yield { usage: usageOf(event) };
    }
    return;
  }
  const { text, reason, usage, scores } = await whole(events);
  const { from, start } = toldOf(scores!, wanted);
  const of = (first: number, last: number) => {
    const { logprobs } = wanted;
    return logprobs ? { logprobs: logProbabilities(scores!, logprobs, first, last, start) } : {};
  };
  const { promptTokens, offsets, tokens } = scores!;
  if (wanted.echo || wanted.ofPrompt !== undefined) {
    yield choice(echoed(prompt, wanted, scores), {
      ...(wanted.echo ? of(from, promptTokens) : {}),
      ...(wanted.ofPrompt === undefined ? {} : { prompt_logprobs: promptScores(scores!, wanted.ofPrompt) }),
    });
  }
  const begin = offsets[promptTokens]!;
  for (let i = promptTokens; i < tokens.length; i++) {
    // Stops cut the text, not its tokens; what the last one leaves unfinished stands at its end.
    const end = i + 1 === tokens.length ? text.length : offsets[i + 1]! - begin;
    yield choice(text.slice(offsets[i]! - begin, end), of(i, i + 1));
  }
  yield choice("", { finish_reason: reason });
  yield { usage };
}

/** What several texts used together. */
export function sumOf(all: readonly ReturnType<typeof usageOf>[]): ReturnType<typeof usageOf> {
  const sum = (of: keyof ReturnType<typeof usageOf>) => all.reduce((total, usage) => total + usage[of], 0);
  return {
    prompt_tokens: sum("prompt_tokens"),
    completion_tokens: sum("completion_tokens"),
    total_tokens: sum("total_tokens"),
  };
}

/** Why a text ended, as the OpenAI API has it. */
export function reasonOf(reason: string): "stop" | "length" {
  return reason === "length" ? "length" : "stop";
}

/** The tokens that a text used. */
export function usageOf({ promptTokens, completionTokens }: Extract<InferenceEvent, { type: "end" }>) {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
  };
}
