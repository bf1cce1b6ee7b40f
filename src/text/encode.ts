/**
 * From rows of a dataset to token ids with a mark on every token that is to be predicted.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";
import type { ChatTemplate } from "./chat_template.ts";
import { commonPrefix, encodeConversation } from "./conversation.ts";
import type { ChatMessage, DatasetRow, RowSource } from "./dataset.ts";
import { insertion, type PrivilegedTokens, withPrivileged } from "./privileged.ts";
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
  /** The worse answer to the same prompt, of a row that has one: only losses over pairs of texts look at it. */
  rejected?: { ids: Int32Array; supervised: Uint8Array };
  /** The same sample as a second tokenizer has it, where there is one. */
  other?: OtherEncoding;
  /** What the teacher alone reads, where it is told more than the student. */
  privileged?: PrivilegedTokens;
}

/** Tokens of a sample, those of its rejected text with them. */
export function sampleLength({ ids, rejected }: EncodedSample): number {
  return ids.length + (rejected?.ids.length ?? 0);
}

/** A sample in the tokens of a second tokenizer. */
export interface OtherEncoding {
  ids: Int32Array;
  /** As in {@linkcode EncodedSample}. */
  supervised: Uint8Array;
  /**
   * Groups of tokens of both sides that stand for the same bytes, in order, four numbers each: first token and one past the last, of the
   * sample, then of this encoding. Tokens between groups stand for nothing on the other side.
   */
  groups: Int32Array;
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
   * that overlap by `overlap` tokens, in which every target is predicted exactly once.
   */
  tooLong?: TooLong;
  /**
   * Which of the assistant's turns are learnt: `all` in one sample (default); the `last`; or `each` in a sample of its own that ends with it,
   * as the model sees it when it writes that turn: templates may render earlier turns otherwise, such as without their thinking.
   */
  turns?: "all" | "last" | "each";
  /** Tokens that the pieces of a split sample have in common, as context (default 1); below `contextLength`. */
  overlap?: number;
  /** Whether `</s>` and the like that are written out in the data become control tokens (off by default). */
  specialInText?: boolean;
  /** A second tokenizer that encodes every row too. */
  align?: SampleAlignment;
  /** Whether a row's privileged text is encoded too (off by default). */
  privileged?: boolean;
}

/** Encodes rows for a second tokenizer. */
export interface SampleAlignment {
  /** A whole row; undefined where its tokens cannot be aligned and such rows are left out. */
  align(row: DatasetRow, whole: EncodedSample): OtherEncoding | undefined;
  /** Most tokens of a sample in the second encoding. */
  readonly limit: number;
}

/** Counts of what {@linkcode encodeDataset} did. */
export interface EncodeReport {
  rows: number;
  rowsByShape: { text: number; prompt: number; messages: number; pair?: number };
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
  /** Targets that were cut away or dropped with what is too long. */
  lostTargets: number;
  /** Samples in which the token that ends a text or a turn is a target, so that the model learns to stop. */
  stopsLearnt: number;
  /** Rows left out because a second tokenizer does not spell them alike; absent where there is none. */
  unlike?: number;
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
 * @throws {InputError} messages without a chat template, a template that fails, an end token that does not exist, privileged text that
 *   cannot be told apart
 */
export function encodeRow(row: DatasetRow, options: EncodeOptions): EncodedSample {
  const { privileged } = row;
  if (!options.privileged || privileged === undefined) return encodeShared(row, options);
  if (row.shape === "pair") {
    throw new InputError("a row of a chosen and a rejected answer has no place for privileged text", {
      where: `${row.source.file}:${row.source.line}`,
      hint: "Leave out teacher.privileged, or make it a row of prompt and completion.",
    });
  }
  const sample = encodeShared(row, options);
  if (!conversation(row, options)) {
    const { prefix } = options.tokenizer.bosPolicy;
    const at = prefix.every((id, i) => sample.ids[i] === id) ? prefix.length : 0;
    const { specialInText: special = false, tokenizer } = options;
    return { ...sample, privileged: { at, ids: tokenizer.encode(privileged, { addBos: false, special }) } };
  }
  const { ids } = encodeShared(withPrivileged(row, privileged), options);
  return { ...sample, privileged: insertion(sample.ids, ids, row.source) };
}

/** What the student reads of a row. */
function encodeShared(row: DatasetRow, options: EncodeOptions): EncodedSample {
  const { tokenizer, specialInText: special = false } = options;
  const { source, origin, teacher } = row;
  if (row.shape === "pair") {
    const { prompt, chosen, rejected, ...rest } = row;
    const encode = (completion: string) =>
      encodeRow({ ...rest, shape: "prompt", prompt, completion }, { ...options, mask: "completion" });
    const { ids, supervised } = encode(rejected);
    return { ...encode(chosen), rejected: { ids, supervised } };
  }
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
    ({ ids, supervised } = encodeConversation(options.template, tokenizer, messages, {
      ...{ tools, where, mask },
      specialInText: special,
      ...(options.turns === undefined || options.turns === "all" ? {} : { turns: "last" }),
    }));
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

/** What is counted before anything is encoded. */
function emptyReport(): EncodeReport {
  return {
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
    lostTargets: 0,
    stopsLearnt: 0,
  };
}

/** Makes samples of rows, and counts what becomes of them. */
export class SampleEncoder {
  readonly report: EncodeReport = emptyReport();
  readonly #options: EncodeOptions;
  readonly #stops: ReadonlySet<number>;
  readonly #refused: string[] = [];
  #file: string | undefined;

  /** @throws {InputError} a context length or an overlap that does not do */
  constructor(options: EncodeOptions) {
    const { contextLength, overlap = 1, tokenizer, endToken } = options;
    if (!Number.isInteger(contextLength) || contextLength < 2) {
      throw new InputError(`the context length must be a whole number from 2, not ${contextLength}`);
    }
    if (!Number.isInteger(overlap) || overlap < 1 || overlap >= contextLength) {
      throw new InputError(
        `the overlap must be a whole number from 1 to ${contextLength - 1}, not ${overlap}`,
      );
    }
    this.#options = options;
    if (options.align) this.report.unlike = 0;
    this.#stops = new Set([
      ...tokenizer.eosTokens,
      ...(endToken === "bos" && tokenizer.bosToken !== undefined ? [tokenizer.bosToken] : []),
      ...(typeof endToken === "number" ? [endToken] : []),
    ]);
  }

  /**
   * The samples of a row, each of at most `contextLength` tokens and with a target: none, one, or several where it is split.
   *
   * @throws {InputError} what {@linkcode encodeRow} throws
   */
  encode(row: DatasetRow): EncodedSample[] {
    const { report } = this;
    report.rows++;
    report.rowsByShape[row.shape] = (report.rowsByShape[row.shape] ?? 0) + 1;
    this.#file ??= row.source.file;
    return turnsOf(row, this.#options).flatMap((turn) => this.#encodeTurn(turn));
  }

  #encodeTurn(row: DatasetRow): EncodedSample[] {
    const { contextLength, tooLong = "cut", align } = this.#options;
    const { report } = this;
    const whole = this.#encodeWhole(row);
    if (!whole) return [];
    const longest = Math.max(whole.ids.length, whole.rejected?.ids.length ?? 0);
    report.longest = Math.max(report.longest, longest);
    const { limit = Infinity } = align ?? {};
    const cut = (start: number, end: number, context = 1) => slice(whole, start, end, context, limit);
    let pieces = [whole.other && whole.other.ids.length > limit ? cut(0, whole.ids.length) : whole];
    if (longest > contextLength) {
      // A pair is compared whole, so it cannot become several.
      const cuts = tooLong === "cut" || (tooLong === "split" && whole.rejected);
      if (tooLong === "refuse") {
        this.#refused.push(`${row.source.file}:${row.source.line}: ${longest} tokens`);
      }
      if (cuts) report.cut++;
      else if (tooLong === "drop") report.dropped++;
      else if (tooLong === "split") report.split++;
      pieces = cuts
        ? [cut(0, contextLength)]
        : tooLong === "split"
        ? splitSample(whole.ids.length, contextLength, this.#options.overlap ?? 1, cut)
        : [];
      if (cuts || tooLong !== "split") {
        report.lostTargets += countTargets(whole) -
          pieces.reduce((sum, piece) => sum + countTargets(piece), 0);
      }
    }
    return pieces.filter((piece) => this.#count(piece));
  }

  /** A row in the tokens of both sides, where there are two; undefined where it is left out because they are not alike. */
  #encodeWhole(row: DatasetRow): EncodedSample | undefined {
    const whole = encodeRow(row, this.#options);
    const { align } = this.#options;
    if (!align) return whole;
    const other = align.align(row, whole);
    if (other) return { ...whole, other };
    this.report.unlike!++;
    return undefined;
  }

  #count(piece: EncodedSample): boolean {
    const { report } = this;
    const targets = countTargets(piece);
    if (targets === 0 || piece.rejected?.supervised.includes(1) === false) {
      report.withoutTarget++;
      return false;
    }
    report.samples++;
    report.tokens += sampleLength(piece);
    report.supervisedTokens += targets;
    if (piece.ids.some((id, i) => piece.supervised[i] === 1 && this.#stops.has(id))) report.stopsLearnt++;
    return true;
  }

  /**
   * Says what was wrong with all rows together.
   *
   * @throws {InputError} rows that are too long, if those are refused (all are listed); no sample left
   */
  finish(): EncodeReport {
    const { report } = this;
    if (this.#refused.length > 0) throw tooLongError(this.#refused, this.#options.contextLength);
    if (report.samples === 0) {
      throw new InputError(
        `no sample is left of ${report.rows} rows: ${report.dropped} dropped as too long, ` +
          `${report.withoutTarget} without a token to predict`,
        {
          ...(this.#file === undefined ? {} : { where: this.#file }),
          hint: "Raise data.contextLength, or look at the rows with `limbeck preview`.",
        },
      );
    }
    return report;
  }
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
  const encoder = new SampleEncoder(options);
  const samples: EncodedSample[] = [];
  for (const row of rows) for (const sample of encoder.encode(row)) samples.push(sample);
  return { samples, report: encoder.finish() };
}

/** The rows that a conversation stands for: itself, or what leads to its last turn of the assistant, or to each of them. */
function turnsOf(row: DatasetRow, { turns = "all", mask }: EncodeOptions): DatasetRow[] {
  if (row.shape !== "messages" || turns === "all" || mask === "all") return [row];
  const ends = row.messages.flatMap(({ role }, i) => role === "assistant" ? [i + 1] : []);
  if (ends.length === 0) return [row];
  return (turns === "each" ? ends : ends.slice(-1)).map((end) => ({
    ...row,
    messages: row.messages.slice(0, end),
  }));
}

function countTargets({ supervised }: EncodedSample): number {
  return supervised.reduce((sum, flag) => sum + flag, 0);
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

/** Tokens `start` to `end` of a sample, of which the first `context` are no targets; of a second encoding at most `limit` tokens. */
function slice(
  sample: EncodedSample,
  start: number,
  end: number,
  context: number,
  limit: number,
): EncodedSample {
  const part = ({ ids, supervised }: Pick<EncodedSample, "ids" | "supervised">) => {
    const flags = supervised.slice(start, end);
    flags.fill(0, 0, context);
    return { ids: ids.slice(start, end), supervised: flags };
  };
  const other = sample.other && sliceOther(sample.other, { start, end, context, limit });
  const { privileged, ...shared } = sample;
  return {
    ...{ ...shared, ...part(sample) },
    ...(privileged && start <= privileged.at && privileged.at < end
      ? { privileged: { ...privileged, at: privileged.at - start } }
      : {}),
    ...(sample.rejected ? { rejected: part(sample.rejected) } : {}),
    ...(other ? { other } : {}),
  };
}

/**
 * What belongs to tokens from `start` up to `end` in the second encoding: the tokens of their groups, as far as they lie within the limit, and
 * the one before them, which gives the first its context. Those of the first `context` tokens are no targets here either.
 */
function sliceOther(
  { ids, supervised, groups }: OtherEncoding,
  { start, end, context, limit }: { start: number; end: number; context: number; limit: number },
): OtherEncoding {
  const kept: number[] = [];
  let from = 0;
  for (let g = 0; g < groups.length; g += 4) {
    const [a, b, c, d] = groups.subarray(g, g + 4) as unknown as [number, number, number, number];
    if (a < start + Number(start > 0) || b > end) continue;
    if (kept.length === 0) from = start === 0 ? 0 : Math.max(0, c - 1);
    if (d - from > limit) break;
    kept.push(a - start, b - start, c - from, d - from);
  }
  const count = kept.length === 0 ? Math.min(1, ids.length) : kept.at(-1)!;
  const flags = supervised.slice(from, from + count);
  flags.fill(0, 0, 1);
  for (let g = 0; start > 0 && g < kept.length && kept[g]! < context; g += 4) {
    flags.fill(0, kept[g + 2]!, kept[g + 3]!);
  }
  return { ids: ids.slice(from, from + count), supervised: flags, groups: Int32Array.from(kept) };
}

/**
 * Pieces of at most `length` tokens; each begins with the last `overlap` tokens of the one before, which give its targets a context and are
 * none themselves.
 */
function splitSample(
  total: number,
  length: number,
  overlap: number,
  cut: (start: number, end: number, context: number) => EncodedSample,
): EncodedSample[] {
  const pieces: EncodedSample[] = [];
  for (let start = 0; start + overlap < total; start += length - overlap) {
    pieces.push(cut(start, Math.min(start + length, total), start === 0 ? 1 : overlap));
  }
  return pieces;
}
