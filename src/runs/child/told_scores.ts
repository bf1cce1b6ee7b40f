/**
 * Scores of a text as one process tells another: in one line, arrays as base64.
 *
 * @module
 */
import type { TextScores } from "../../distill/generate/scorer.ts";

/** What a model says of each of n tokens: those of the prompt, then those it wrote. */
export interface ToldScores {
  /** How many of the tokens are the prompt's. */
  readonly promptTokens: number;
  readonly tokens: readonly number[];
  /** Where in the decoded text each token begins, in UTF-16 code units; n + 1 numbers, the last of them the text's length. */
  readonly offsets: readonly number[];
  /** The prompt decoded. */
  readonly promptText: string;
  /** Texts of the tokens that occur in here, by id. */
  readonly texts: readonly (readonly [id: number, text: string])[];
  /** Likeliest tokens of each place, K. */
  readonly top: number;
  /** f32 [n]; NaN for the first. */
  readonly logProbabilities: string;
  /** i32 [n]; 0 for the first. */
  readonly ranks: string;
  /** u32 [n, K]; the first row has none. */
  readonly topIds: string;
  /** f32 [n, K] */
  readonly topLogProbabilities: string;
}

/** The same with its arrays. */
export interface ReadScores extends Pick<ToldScores, "promptTokens" | "tokens" | "offsets" | "promptText"> {
  readonly texts: ReadonlyMap<number, string>;
  readonly top: number;
  readonly logProbabilities: Float32Array;
  readonly ranks: Int32Array;
  readonly topIds: Uint32Array;
  readonly topLogProbabilities: Float32Array;
}

/** The most likeliest tokens that one text is told with, over all its places. */
export const MOST_TOLD: number = 1 << 18;

/**
 * Puts scores into a message.
 *
 * @param textOf the text of a token
 * @param scores of `tokens`, or of all but the last, which is the likeliest after the others then
 * @param top how many of the likeliest are told
 */
export function tellScores(
  scores: TextScores,
  tokens: readonly number[],
  top: number,
  { offsets, promptText, promptTokens }: Pick<ToldScores, "offsets" | "promptText" | "promptTokens">,
  textOf: (id: number) => string,
): ToldScores {
  const n = tokens.length;
  const logProbabilities = new Float32Array(n).fill(NaN);
  const ranks = new Int32Array(n);
  logProbabilities.set(scores.logProbabilities);
  ranks.set(scores.ranks);
  if (scores.tokens.length < n) {
    logProbabilities[n - 1] = scores.topLogProbabilities[(n - 1) * scores.top]!;
    ranks[n - 1] = 1;
  }
  const topIds = new Uint32Array(n * top);
  const topLogProbabilities = new Float32Array(n * top);
  for (let i = 1; i < n; i++) {
    const row = i * scores.top;
    topIds.set(scores.topIds.subarray(row, row + top), i * top);
    topLogProbabilities.set(scores.topLogProbabilities.subarray(row, row + top), i * top);
  }
  const ids = new Set([...tokens, ...topIds.subarray(top)]);
  return {
    ...{ promptTokens, tokens, offsets, promptText, top },
    texts: [...ids].map((id) => [id, textOf(id)]),
    logProbabilities: base64(logProbabilities),
    ranks: base64(ranks),
    topIds: base64(topIds),
    topLogProbabilities: base64(topLogProbabilities),
  };
}

/** Reads a message. */
export function readScores(told: ToldScores): ReadScores {
  const bytes = (text: string) => Uint8Array.fromBase64(text).buffer;
  return {
    ...told,
    texts: new Map(told.texts),
    logProbabilities: new Float32Array(bytes(told.logProbabilities)),
    ranks: new Int32Array(bytes(told.ranks)),
    topIds: new Uint32Array(bytes(told.topIds)),
    topLogProbabilities: new Float32Array(bytes(told.topLogProbabilities)),
  };
}

function base64(values: Float32Array | Int32Array | Uint32Array): string {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength).toBase64();
}
