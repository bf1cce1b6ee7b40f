/**
 * The files of a tokenizer that has a `tokenizer.model` and no tokenizer.json: the same in the words of a tokenizer.json, with the
 * SentencePiece model beside them, which decides.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { mergesFromScores } from "./merges.ts";
import { pieceType, readSentencePiece, type SentencePieceModel } from "./model.ts";

/** More tokens than the model has pieces. */
export interface ExtraToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
  /** Whether it takes the white space before or behind it. */
  readonly lstrip?: boolean;
  readonly rstrip?: boolean;
}

/**
 * A tokenizer.json, and what a tokenizer_config.json has to say of special pieces where it does not.
 *
 * @param tokenizerConfig Parsed tokenizer_config.json; its `added_tokens_decoder` may name more tokens
 * @param addedTokens Parsed added_tokens.json, as old folders have it: ids by token
 * @throws {InputError} for a file that is no SentencePiece model, and tokens that contradict its pieces
 */
export function sentencePieceFiles(
  bytes: Uint8Array,
  tokenizerConfig: Readonly<Record<string, unknown>>,
  addedTokens: Readonly<Record<string, unknown>>,
  where: string,
): { tokenizerJson: Record<string, unknown>; tokenizerConfig: Record<string, unknown> } {
  const { model, ids } = readSentencePiece(bytes, where);
  const extra = extraTokens(tokenizerConfig, addedTokens, model, where);
  const names = { bos_token: ids.bos, eos_token: ids.eos, pad_token: ids.pad };
  const special = Object.fromEntries(
    Object.entries(names).map(([name, id]) => [name, id < 0 ? null : model.pieces[id]]),
  );
  return {
    tokenizerJson: tokenizerJsonOf(model, extra),
    tokenizerConfig: { ...special, unk_token: null, ...tokenizerConfig },
  };
}

function extraTokens(
  config: Readonly<Record<string, unknown>>,
  addedTokens: Readonly<Record<string, unknown>>,
  { pieces }: SentencePieceModel,
  where: string,
): ExtraToken[] {
  const found = new Map<number, ExtraToken>();
  const add = (id: unknown, content: unknown, flags: Omit<ExtraToken, "id" | "content">) => {
    const number = Number(id);
    const isThere = Number.isSafeInteger(number) && number >= 0 && typeof content === "string" &&
      content !== "";
    if (!isThere || (pieces[number] !== undefined && pieces[number] !== content)) {
      throw new InputError(
        `the added token ${JSON.stringify(content)} has the id ${id}, which is another piece's`,
        {
          where,
          hint: "tokenizer_config.json or added_tokens.json belongs to another model.",
        },
      );
    }
    if (number >= pieces.length) found.set(number, { id: number, content, ...flags });
  };
  for (const [content, id] of Object.entries(addedTokens)) add(id, content, { special: true });
  for (const [id, token] of Object.entries((config.added_tokens_decoder ?? {}) as Record<string, unknown>)) {
    const { content, special, lstrip, rstrip } = (token ?? {}) as Record<string, unknown>;
    add(id, content, { special: special === true, lstrip: lstrip === true, rstrip: rstrip === true });
  }
  return [...found.values()].sort((a, b) => a.id - b.id);
}

/** Components as the converters of Hugging Face write them. They give the same ids but where equal scores, or spaces, meet. */
function tokenizerJsonOf(model: SentencePieceModel, extra: readonly ExtraToken[]): Record<string, unknown> {
  const { pieces, scores, types, normalizer } = model;
  const own = pieces.flatMap((content, id): ExtraToken[] => {
    const isControl = types[id] === pieceType.control;
    return isControl || types[id] === pieceType.userDefined ? [{ id, content, special: isControl }] : [];
  });
  const unknown = types.indexOf(pieceType.unknown);
  const space = "\u2581";
  const steps: unknown[] = [];
  if (normalizer.charsmap !== "") {
    steps.push({ type: "Precompiled", precompiled_charsmap: normalizer.charsmap });
  }
  if (normalizer.removeExtraWhitespaces) {
    steps.push({ type: "Strip", strip_left: true, strip_right: true });
    steps.push({ type: "Replace", pattern: { Regex: " {2,}" }, content: " " });
  }
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [...own, ...extra].map((token) => ({
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      ...token,
    })),
    normalizer: steps.length > 0 ? { type: "Sequence", normalizers: steps } : null,
    pre_tokenizer: {
      type: "Metaspace",
      replacement: space,
      prepend_scheme: normalizer.addDummyPrefix ? "always" : "never",
      split: false,
    },
    post_processor: null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: space }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        ...(normalizer.addDummyPrefix ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
      ],
    },
    model: model.type === "unigram"
      ? {
        type: "Unigram",
        unk_id: unknown,
        vocab: pieces.map((piece, id) => [piece, scores[id]]),
        byte_fallback: model.byteFallback,
      }
      : {
        type: "BPE",
        dropout: null,
        unk_token: pieces[unknown],
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        fuse_unk: true,
        byte_fallback: model.byteFallback,
        ignore_merges: false,
        vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
        merges: mergesFromScores(pieces, scores, types),
      },
    sentencepiece: model,
  };
}
