/**
 * Items of tasks as tokens.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { ChoiceItem, TextItem } from "../../evaluation/tasks/items.ts";
import { textWindows } from "../../evaluation/scores/windows.ts";
import type { MultipleChoiceTask, PerplexityTask } from "../../evaluation/tasks/task.ts";
import { commonPrefix } from "../../text/conversation.ts";
import type { TextTokenizer } from "../../text/tokenizer.ts";
import type { Stretch } from "./token_scorer.ts";

/** A text as tokens. */
export interface EncodedText {
  /** Its windows. */
  readonly stretches: readonly Stretch[];
  /** UTF-8 bytes of what is predicted. */
  readonly bytes: number;
}

/** A question's choices as tokens. */
export interface EncodedChoices {
  readonly choices: readonly { readonly stretch: Stretch; readonly bytes: number }[];
  readonly answer: number;
  /** Whether the beginning of the context had to be left out. */
  readonly cut: boolean;
}

const utf8 = new TextEncoder();

/**
 * What stands before every text. A tokenizer may put nothing there though its model was trained with a BOS token before each text (MiniMind,
 * say); so one that names such a token gets it, unless it is the token that ends texts, as GPT-2's is.
 *
 * @param bos What the task says
 */
export function startOf(tokenizer: TextTokenizer, bos: boolean | undefined): readonly number[] {
  const { bosPolicy, bosToken, eosTokens, where } = tokenizer;
  if (bos === false) return [];
  if (bosPolicy.prefix.length > 0) return bosPolicy.prefix;
  if (bos && bosToken === undefined) {
    throw new InputError("the task asks for a BOS token, but the tokenizer has none", {
      where,
      hint: "Leave out bos, or say bos: false.",
    });
  }
  const isOwn = bosToken !== undefined && !eosTokens.includes(bosToken);
  return bos || isOwn ? [bosToken!] : [];
}

/**
 * Tokens of a context with what follows it. They are tokenised as one text, as they would stand in one; what is predicted begins at the
 * first token that differs from the context's own.
 */
function joined(
  tokenizer: TextTokenizer,
  bos: boolean | undefined,
  context: string,
  text: string,
): { ids: Int32Array; from: number } {
  const start = startOf(tokenizer, bos);
  const encode = (text: string) => tokenizer.encode(text, { addBos: false });
  const whole = encode(context + text);
  const shared = context === "" ? 0 : commonPrefix(encode(context), whole);
  const ids = Int32Array.from([...start, ...whole]);
  // Nothing predicts a text's first token.
  return { ids, from: Math.max(1, start.length + shared) };
}

/** A text in windows. @param contextLength Most tokens that the model takes */
export function encodeText(
  { context, text }: TextItem,
  { bos, window }: Pick<PerplexityTask, "bos" | "window">,
  tokenizer: TextTokenizer,
  contextLength: number,
): EncodedText {
  const length = window.length ?? contextLength;
  const { ids, from } = joined(tokenizer, bos, context, text);
  // With one token of overlap every token counts once.
  const stretches = textWindows(ids.length, length, window.stride ?? Math.max(1, length - 1))
    .map(({ start, end, firstCounted }) => ({
      ids: ids.slice(start, end),
      from: Math.max(firstCounted, from) - start,
    }))
    .filter(({ ids, from }) => from < ids.length);
  return { stretches, bytes: utf8.encode(text).length };
}

/** The choices of a question. A context that is too long loses its beginning, but for what stands before every text. */
export function encodeChoices(
  { context, choices, answer, source }: ChoiceItem,
  { bos, delimiter }: Pick<MultipleChoiceTask, "bos" | "delimiter">,
  tokenizer: TextTokenizer,
  contextLength: number,
): EncodedChoices {
  let cut = false;
  const encoded = choices.map((choice) => {
    const { ids, from } = joined(tokenizer, bos, context, delimiter + choice);
    const where = `${source.file}:${source.line}`;
    if (from >= ids.length) {
      throw new InputError(`the choice ${JSON.stringify(choice)} has no token to predict`, {
        where,
        hint: "Give the context at least one character, or the task bos: true.",
      });
    }
    const left = ids.length - contextLength;
    const bytes = utf8.encode(choice).length;
    if (left <= 0) return { stretch: { ids, from }, bytes };
    const start = startOf(tokenizer, bos).length;
    if (from - left <= start) {
      throw new InputError(
        `the choice ${
          JSON.stringify(choice.slice(0, 40))
        } leaves no room for its context in ${contextLength} tokens`,
        { where, hint: "Shorten it, or take a model that reads longer texts." },
      );
    }
    cut = true;
    const kept = Int32Array.from([...ids.subarray(0, start), ...ids.subarray(start + left)]);
    return { stretch: { ids: kept, from: from - left }, bytes };
  });
  return { choices: encoded, answer, cut };
}
