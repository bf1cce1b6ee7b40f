/**
 * Checks of a `tokenizer.json` before it is used: component types from a list that is known to be implemented, token ids in range.
 * The library behind {@linkcode TextTokenizer} accepts unknown model types and ids of any size.
 *
 * @module
 */
import { isObject } from "../base/json.ts";
import { InputError } from "../base/errors.ts";
import { checkSentencePiece, type SentencePieceSection } from "./sentencepiece/section.ts";

/** An entry of `added_tokens`. */
export interface AddedToken {
  id: number;
  content: string;
  special: boolean;
}

/** A checked `tokenizer.json`; components stay as they were in the file. */
export interface TokenizerJson {
  model: Record<string, unknown> & { type: string };
  added_tokens: (Record<string, unknown> & AddedToken)[];
  normalizer: Record<string, unknown> | null;
  pre_tokenizer: Record<string, unknown> | null;
  post_processor: Record<string, unknown> | null;
  decoder: Record<string, unknown> | null;
  /** Where there is one, ids come from it; the other parts say the same in the words of the library. */
  sentencepiece?: SentencePieceSection;
}

/** Ids above this cannot be rows of any real embedding; refusing them keeps a hostile file from making huge sparse arrays. */
const MAX_TOKEN_ID = 2 ** 24 - 1;

type Component = "normalizer" | "pre_tokenizer" | "post_processor" | "decoder";

const ALLOWED: Record<Component, { types: readonly string[]; children: string }> = {
  normalizer: {
    types: [
      "BertNormalizer",
      "Lowercase",
      "NFC",
      "NFD",
      "NFKC",
      "NFKD",
      "Precompiled",
      "Prepend",
      "Replace",
      "Sequence",
      "Strip",
      "StripAccents",
    ],
    children: "normalizers",
  },
  pre_tokenizer: {
    types: [
      "BertPreTokenizer",
      "ByteLevel",
      "Digits",
      "Metaspace",
      "Punctuation",
      "Sequence",
      "Split",
      "Whitespace",
      "WhitespaceSplit",
    ],
    children: "pretokenizers",
  },
  post_processor: {
    types: ["BertProcessing", "ByteLevel", "RobertaProcessing", "Sequence", "TemplateProcessing"],
    children: "processors",
  },
  decoder: {
    types: [
      "BPEDecoder",
      "ByteFallback",
      "ByteLevel",
      "Fuse",
      "Metaspace",
      "Replace",
      "Sequence",
      "Strip",
      "WordPiece",
    ],
    children: "decoders",
  },
};

/**
 * Checks a parsed `tokenizer.json`.
 *
 * @param value the parsed file
 * @param where how to name the file in errors
 * @throws {InputError} unknown component type, missing vocabulary, an id that is negative, fractional, huge or used twice
 */
export function checkTokenizerJson(value: unknown, where: string): TokenizerJson {
  if (!isObject(value)) throw new InputError("a tokenizer.json must be a JSON object", { where });
  const model = checkModel(value.model, where);
  const component = (key: Component) => checkComponent(key, value[key], key, where);
  const sentencepiece = checkSentencePiece(value.sentencepiece, where);
  return {
    model,
    added_tokens: checkAddedTokens(value.added_tokens, where),
    normalizer: component("normalizer"),
    pre_tokenizer: component("pre_tokenizer"),
    post_processor: component("post_processor"),
    decoder: component("decoder"),
    ...(sentencepiece ? { sentencepiece } : {}),
  };
}

function checkComponent(
  kind: Component,
  value: unknown,
  path: string,
  where: string,
): Record<string, unknown> | null {
  if (value === null || value === undefined) return null;
  const { types, children } = ALLOWED[kind];
  if (!isObject(value) || typeof value.type !== "string" || !types.includes(value.type)) {
    const found = isObject(value) ? JSON.stringify(value.type) : JSON.stringify(value);
    throw new InputError(`${path} has type ${found}; known types: ${types.join(", ")}`, {
      where,
      hint: "This tokenizer uses a component that is not implemented here, so its ids would be wrong.",
    });
  }
  if (value.type === "Sequence") {
    const list = value[children];
    if (!Array.isArray(list)) throw new InputError(`${path}.${children} must be a list`, { where });
    list.forEach((child, i) => checkComponent(kind, child, `${path}.${children}[${i}]`, where));
  }
  return value;
}

function checkModel(value: unknown, where: string): TokenizerJson["model"] {
  if (!isObject(value)) throw new InputError("model is missing or not an object", { where });
  // Files written before the field existed are byte-pair models: an object of ids together with a list of merges.
  const type = value.type ?? (isObject(value.vocab) && Array.isArray(value.merges) ? "BPE" : undefined);
  if (type !== "BPE" && type !== "Unigram" && type !== "WordPiece") {
    throw new InputError(
      `model.type is ${JSON.stringify(type)}; known types: BPE, Unigram, WordPiece`,
      { where },
    );
  }
  if (type === "Unigram") {
    const pieces = value.vocab;
    const good = Array.isArray(pieces) && pieces.length > 0 &&
      pieces.every((p) => Array.isArray(p) && typeof p[0] === "string" && typeof p[1] === "number");
    if (!good) {
      throw new InputError("model.vocab of a Unigram model must be a list of [piece, score]", { where });
    }
  } else {
    checkVocabulary(value.vocab, where);
    if (type === "BPE") checkMerges(value, where);
  }
  return { ...value, type };
}

function checkVocabulary(vocab: unknown, where: string): void {
  if (!isObject(vocab)) throw new InputError("model.vocab must be an object of token to id", { where });
  const seen = new Map<number, string>();
  for (const [token, id] of Object.entries(vocab)) {
    checkId(id, token, where);
    const other = seen.get(id);
    if (other !== undefined) {
      throw new InputError(
        `tokens ${JSON.stringify(other)} and ${JSON.stringify(token)} share the id ${id}`,
        { where },
      );
    }
    seen.set(id, token);
  }
  if (seen.size === 0) throw new InputError("model.vocab is empty", { where });
}

function checkMerges(model: Record<string, unknown>, where: string): void {
  const good = Array.isArray(model.merges) &&
    model.merges.every((merge) =>
      typeof merge === "string"
        ? merge.includes(" ")
        : Array.isArray(merge) && merge.length === 2 && merge.every((part) => typeof part === "string")
    );
  if (!good) throw new InputError(`model.merges must be a list of "left right" or [left, right]`, { where });
  if (typeof model.continuing_subword_prefix === "string" && model.continuing_subword_prefix !== "") {
    throw new InputError("model.continuing_subword_prefix is not supported for BPE", { where });
  }
}

function checkAddedTokens(value: unknown, where: string): TokenizerJson["added_tokens"] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw new InputError("added_tokens must be a list", { where });
  return value.map((token, i) => {
    if (!isObject(token) || typeof token.content !== "string" || token.content === "") {
      throw new InputError(`added_tokens[${i}] must be an object with a content`, { where });
    }
    const id = token.id;
    checkId(id, token.content, where);
    return { ...token, content: token.content, id, special: token.special === true };
  });
}

function checkId(id: unknown, token: string, where: string): asserts id is number {
  if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id > MAX_TOKEN_ID) {
    throw new InputError(
      `token ${JSON.stringify(token)} has the id ${
        JSON.stringify(id)
      }; ids are integers from 0 to ${MAX_TOKEN_ID}`,
      { where },
    );
  }
}

/**
 * How a special token is written in the input of a tokenizer made by {@linkcode withMarkedSpecialTokens}. Lone surrogates cannot occur in
 * well-formed text, so no text can imitate it.
 */
export function specialMarker(id: number): string {
  return `\ud800${id}\ud800`;
}

/**
 * The same tokenizer with its special tokens under unforgeable names, for text that must stay text: `</s>` in a story is four characters
 * and not the end of the sequence. Special tokens also leave the model's vocabulary, where a lookup of a whole word or a Unigram
 * lattice could still find them; the unknown token stays, because unknown characters need it.
 */
export function withMarkedSpecialTokens(json: TokenizerJson): TokenizerJson {
  const special = new Set(json.added_tokens.filter((t) => t.special).map((t) => t.content));
  const model = { ...json.model };
  if (model.type === "Unigram") {
    const unknown = model.unk_id;
    model.vocab = (model.vocab as [string, number][]).map(([piece, score], id) =>
      special.has(piece) && id !== unknown ? [specialMarker(id), score] : [piece, score]
    );
  } else {
    model.vocab = Object.fromEntries(
      Object.entries(model.vocab as Record<string, number>)
        .filter(([token]) => !special.has(token) || token === model.unk_token),
    );
  }
  const added_tokens = json.added_tokens.map((token) =>
    // Not normalised: a normaliser that puts something before a text would hide the marker.
    token.special ? { ...token, content: specialMarker(token.id), normalized: false } : token
  );
  return { ...json, model, added_tokens };
}

/**
 * The same tokenizer, but a byte-pair model without an unknown token gets one that has no id: the library leaves out what it cannot express,
 * and a missing id can be noticed.
 */
export function withVisibleGaps(json: TokenizerJson): TokenizerJson {
  if (json.model.type !== "BPE" || typeof json.model.unk_token === "string") return json;
  return { ...json, model: { ...json.model, unk_token: "\ud800" } };
}
