/**
 * From rows of a dataset to token ids with a mark on every token that is to be predicted.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";
import type { ChatTemplate } from "./chat_template.ts";
import { commonPrefix, encodeConversation } from "./conversation.ts";
import type { ChatMessage, DatasetRow, RowSource } from "./dataset.ts";
import type { TextTokenizer } from "./tokenizer.ts";

/** One sample: ids, and which of them are targets. */
export interface EncodedSample {
  ids: Int32Array;
  /** 1 where the token is a target. The first token never is: nothing predicts it. */
  supervised: Uint8Array;
  source: RowSource;
  /** Who wrote its row, where the row says so. */
  origin?: string;
  /** Which of several teachers is to teach it, where the row says so. */
  teacher?: string;
}

/** What to do with a sample that is longer than the context. */
export type TooLong = "cut" | "drop" | "refuse" | "split";

/** How rows become samples. */
export interface EncodeOptions {
  tokenizer: TextTokenizer;
  /** Needed for rows of messages. */
  template?: ChatTemplate;
  /** Put prompt/completion rows through the template as a user's and an assistant's turn (off by default). */
  promptsAsChat?: boolean;
  /** Longest sample in tokens. */
  contextLength: number;
  /**
   * Which tokens are targets: only the completion or the assistant's turns, or all. `auto` (default) is `completion` for prompt/completion and
   * messages and `all` for text; a text has no prompt, so it is learnt whole either way.
   */
  mask?: "auto" | "completion" | "all";
  /**
   * Token put after a text or a completion; `auto` (default) is `eos`. Models differ: some were trained to end with BOS. Rows that go through
   * the chat template end as it says.
   */
  endToken?: number | "auto" | "eos" | "bos" | "none";
  /**
   * `cut` keeps the first `contextLength` tokens (default); `drop` leaves the sample out; `refuse` is an error; `split` makes several samples
   * that overlap by one token, so every target is predicted exactly once.
   */
  tooLong?: TooLong;
  /** Whether `</s>` and the like in text, prompt and completion become control tokens (off by default; never in messages). */
  specialInText?: boolean;
}

/** Counts of what {@linkcode encodeDataset} did. */
export interface EncodeReport {
  rows: number;
  rowsByShape: { text: number; prompt: number; messages: number };
  samples: number;
  tokens: number;
  supervisedTokens: number;
  longest: number;
  /** Rows longer than the context that were cut, dropped or split. */
  cut: number;
  dropped: number;
  split: number;
  /** Rows and pieces left out because no target was left in them. */
  withoutTarget: number;
}

/** Resolves the token that ends a text. */
function endTokenId(options: EncodeOptions): number | undefined {
  const { tokenizer } = options;
  const endToken = options.endToken === undefined || options.endToken === "auto" ? "eos" : options.endToken;
  if (endToken === "none") return undefined;
  const id = endToken === "eos" ? tokenizer.eosTokens[0] : endToken === "bos" ? tokenizer.bosToken : endToken;
  if (id === undefined || tokenizer.tokenText(id) === undefined) {
    const what = id === undefined
      ? `the tokenizer has no ${endToken} token`
      : `${id} is not in the vocabulary`;
    throw new InputError(`the end token is ${JSON.stringify(endToken)}, but ${what}`, {
      where: tokenizer.where,
      hint: "Set data.endToken to a token id, to bos or to none.",
    });
  }
  return id;
}

/**
 * Encodes one row at full length.
 *
 * Prompt and completion are tokenised as one text, as they will stand at inference after a prompt; the completion begins at the first token
 * that differs from the prompt's own tokens. A token that spans the border therefore counts as completion.
 *
 * @throws {InputError} messages without a chat template, a template that fails, an end token that does not exist
 */
export function encodeRow(row: DatasetRow, options: EncodeOptions): EncodedSample {
  const { tokenizer, specialInText: special = false } = options;
  const { source, origin, teacher } = row;
  const wanted = options.mask ?? "auto";
  const mask = wanted !== "auto" ? wanted : row.shape === "text" ? "all" : "completion";
  const messages = conversation(row, options);
  let ids: Int32Array;
  let supervised: Uint8Array;
  if (messages) {
    const where = `${source.file}:${source.line}`;
    if (!options.template) {
      throw new InputError("the row is a conversation, but the model has no chat template", {
        where,
        hint: "Use a model with a chat_template, or rows of prompt and completion without data.template.",
      });
    }
    const tools = row.shape === "messages" ? row.tools : undefined;
    ({ ids, supervised } = encodeConversation(options.template, tokenizer, messages, { tools, where, mask }));
  } else {
    const text = row.shape === "text" ? row.text : row.shape === "prompt" ? row.prompt + row.completion : "";
    ids = withEnd(tokenizer.encode(text, { special }), endTokenId(options));
    supervised = new Uint8Array(ids.length).fill(1);
    if (row.shape === "prompt" && mask === "completion") {
      supervised.fill(0, 0, commonPrefix(tokenizer.encode(row.prompt, { special }), ids));
    }
  }
  if (supervised.length > 0) supervised[0] = 0;
  return {
    ...{ ids, supervised, source },
    ...(origin === undefined ? {} : { origin }),
    ...(teacher === undefined ? {} : { teacher }),
  };
}

/** The turns of a row that goes through the chat template. */
function conversation(row: DatasetRow, options: EncodeOptions): ChatMessage[] | undefined {
  if (row.shape === "messages") return row.messages;
  if (row.shape !== "prompt" || !options.promptsAsChat) return undefined;
  return [{ role: "user", content: row.prompt }, { role: "assistant", content: row.completion }];
}

function withEnd(ids: Int32Array, end: number | undefined): Int32Array {
  if (end === undefined || (ids.length > 1 && ids[ids.length - 1] === end)) return ids;
  const result = new Int32Array(ids.length + 1);
  result.set(ids);
  result[ids.length] = end;
  return result;
}

/**
 * Encodes a dataset: every row to at most `contextLength` tokens, with counts of what was cut, dropped, split or left without a target.
 *
 * @throws {InputError} what {@linkcode encodeRow} throws; rows that are too long, if those are refused (all are listed); no sample left
 */
export function encodeDataset(
  rows: Iterable<DatasetRow>,
  options: EncodeOptions,
): { samples: EncodedSample[]; report: EncodeReport } {
  const { contextLength, tooLong = "cut" } = options;
  if (!Number.isInteger(contextLength) || contextLength < 2) {
    throw new InputError(`the context length must be a whole number from 2, not ${contextLength}`);
  }
  const report: EncodeReport = {
    rows: 0,
    rowsByShape: { text: 0, prompt: 0, messages: 0 },
    samples: 0,
    tokens: 0,
    supervisedTokens: 0,
    longest: 0,
    cut: 0,
    dropped: 0,
    split: 0,
    withoutTarget: 0,
  };
  const samples: EncodedSample[] = [];
  const refused: string[] = [];
  let file: string | undefined;
  for (const row of rows) {
    report.rows++;
    report.rowsByShape[row.shape]++;
    file ??= row.source.file;
    const whole = encodeRow(row, options);
    report.longest = Math.max(report.longest, whole.ids.length);
    let pieces = [whole];
    if (whole.ids.length > contextLength) {
      if (tooLong === "refuse") {
        refused.push(`${row.source.file}:${row.source.line}: ${whole.ids.length} tokens`);
      }
      if (tooLong === "cut") report.cut++;
      if (tooLong === "drop") report.dropped++;
      if (tooLong === "split") report.split++;
      pieces = tooLong === "cut"
        ? [slice(whole, 0, contextLength)]
        : tooLong === "split"
        ? splitSample(whole, contextLength)
        : [];
    }
    for (const piece of pieces) {
      const targets = piece.supervised.reduce((sum, flag) => sum + flag, 0);
      if (targets === 0) {
        report.withoutTarget++;
        continue;
      }
      samples.push(piece);
      report.samples++;
      report.tokens += piece.ids.length;
      report.supervisedTokens += targets;
    }
  }
  if (refused.length > 0) throw tooLongError(refused, contextLength);
  if (samples.length === 0) {
    throw new InputError(
      `no sample is left of ${report.rows} rows: ${report.dropped} dropped as too long, ` +
        `${report.withoutTarget} without a token to predict`,
      { where: file, hint: "Raise data.contextLength, or look at the rows with `limbeck preview`." },
    );
  }
  return { samples, report };
}

function tooLongError(refused: string[], contextLength: number): InputError {
  const shown = refused.slice(0, 10);
  if (refused.length > shown.length) shown.push(`and ${refused.length - shown.length} more`);
  const count = refused.length === 1 ? "1 sample is" : `${refused.length} samples are`;
  return new InputError(
    [`${count} longer than the context of ${contextLength} tokens:`, ...shown].join("\n  "),
    { hint: "Raise data.contextLength, or set data.tooLong to cut, drop or split." },
  );
}

function slice(sample: EncodedSample, start: number, end: number): EncodedSample {
  const supervised = sample.supervised.slice(start, end);
  supervised[0] = 0;
  return { ...sample, ids: sample.ids.slice(start, end), supervised };
}

/** Pieces of at most `length` tokens; each begins with the last token of the one before, which gives its first target a context. */
function splitSample(sample: EncodedSample, length: number): EncodedSample[] {
  const pieces: EncodedSample[] = [];
  for (let start = 0; start < sample.ids.length - 1; start += length - 1) {
    pieces.push(slice(sample, start, Math.min(start + length, sample.ids.length)));
  }
  return pieces;
}
