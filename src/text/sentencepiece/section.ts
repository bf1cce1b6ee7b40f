/**
 * A SentencePiece model as JSON: what a tokenizer.json of ours holds beside its other parts where ids come from a `tokenizer.model`.
 *
 * @module
 */
import { isObject } from "../../base/json.ts";
import { InputError } from "../../base/errors.ts";

/** What a piece is for (sentencepiece_model.proto, `SentencePiece.Type`). */
export const pieceType = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** Pieces, scores and types are by id. */
export interface SentencePieceSection {
  readonly type: "bpe" | "unigram";
  readonly pieces: readonly string[];
  /** f32 values. */
  readonly scores: readonly number[];
  readonly types: readonly number[];
  /** Whether characters without a piece become their bytes, in place of the unknown piece. */
  readonly byteFallback: boolean;
  /** What the unknown piece is decoded to. */
  readonly unknownSurface: string;
  readonly normalizer: {
    /** The character map in base64, empty for none: the trie's length in bytes, the trie, texts that end in NUL. */
    readonly charsmap: string;
    readonly addDummyPrefix: boolean;
    readonly removeExtraWhitespaces: boolean;
    readonly escapeWhitespaces: boolean;
    /** Puts the dummy prefix behind a text. */
    readonly whitespaceAsSuffix: boolean;
  };
}

/** Checks a section read from JSON. @throws {InputError} naming what is wrong */
export function checkSentencePiece(value: unknown, where: string): SentencePieceSection | undefined {
  if (value === undefined) return undefined;
  const wrong = (what: string) => new InputError(`sentencepiece.${what}`, { where });
  if (!isObject(value) || !isObject(value.normalizer)) {
    throw new InputError("sentencepiece is not an object with a normalizer", { where });
  }
  if (value.type !== "bpe" && value.type !== "unigram") throw wrong("type is neither bpe nor unigram");
  const lists = { pieces: "string", scores: "number", types: "number" };
  for (const [key, kind] of Object.entries(lists)) {
    const list = value[key];
    const { length } = value.pieces as unknown[];
    if (!Array.isArray(list) || list.length !== length || list.some((entry) => typeof entry !== kind)) {
      throw wrong(`${key} is not a list of a ${kind} for each piece`);
    }
  }
  const { charsmap, ...flags } = value.normalizer;
  if (typeof charsmap !== "string") throw wrong("normalizer.charsmap is not text");
  for (
    const flag of ["addDummyPrefix", "removeExtraWhitespaces", "escapeWhitespaces", "whitespaceAsSuffix"]
  ) {
    if (typeof flags[flag] !== "boolean") throw wrong(`normalizer.${flag} is not true or false`);
  }
  if (typeof value.byteFallback !== "boolean" || typeof value.unknownSurface !== "string") {
    throw wrong("byteFallback or unknownSurface is missing");
  }
  return value as unknown as SentencePieceSection;
}
