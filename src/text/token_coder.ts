/**
 * What turns texts into ids: the library for a tokenizer.json, SentencePiece itself for a `tokenizer.model`.
 *
 * @module
 */
import { Tokenizer } from "@huggingface/tokenizers";
import { PieceMatcher } from "./sentencepiece/normalizer.ts";
import type { SentencePieceSection } from "./sentencepiece/section.ts";
import { SentencePiece } from "./sentencepiece/sentencepiece.ts";
import {
  specialMarker,
  type TokenizerJson,
  withMarkedSpecialTokens,
  withVisibleGaps,
} from "./tokenizer_json.ts";

/** Texts to ids and back. */
export interface TokenCoder {
  /** Highest id + 1. */
  readonly vocabularySize: number;
  /**
   * Ids of a well-formed text; undefined among them where there is none for what stands there.
   *
   * @param special Whether special tokens are recognised where they are written out; else only where their marker stands
   */
  encode(text: string, special: boolean): number[];
  /** The text of one or more ids of the vocabulary, special tokens written out. */
  decode(ids: number[]): string;
  /** The token of an id, as the vocabulary writes it. */
  token(id: number): string | undefined;
  id(token: string): number | undefined;
}

/** The library, from a checked tokenizer.json. */
export function libraryCoder(json: TokenizerJson, config: Record<string, unknown>): TokenCoder {
  const strict = withVisibleGaps(json);
  const full = new Tokenizer(strict, config);
  const plain = new Tokenizer(withMarkedSpecialTokens(strict), config);
  let highest = -1;
  for (const id of full.get_vocab().values()) highest = Math.max(highest, id);
  return {
    vocabularySize: highest + 1,
    encode: (text, special) => (special ? full : plain).encode(text, { add_special_tokens: false }).ids,
    decode: (ids) => full.decode(ids, { clean_up_tokenization_spaces: false }),
    token: (id) => full.id_to_token(id),
    id: (token) => full.token_to_id(token),
  };
}

/**
 * A SentencePiece model with what a tokenizer.json adds to its pieces. What stands between special tokens is encoded by itself, each
 * with the dummy prefix, or, where tokenizer_config.json says `legacy: false`, only what the text begins with.
 *
 * @throws {InputError} pieces that contradict each other
 */
export function sentencePieceCoder(
  json: TokenizerJson,
  section: SentencePieceSection,
  config: Record<string, unknown>,
  where: string,
): TokenCoder {
  const model = new SentencePiece(section, where);
  const everywhere = config.legacy !== false;
  const tokens = new Map(section.pieces.entries());
  for (const { id, content } of json.added_tokens) tokens.set(id, content);
  const ids = new Map([...tokens].map(([id, token]) => [token, id]));
  // Pieces of the model that are not special are its own business.
  const beyond = json.added_tokens.filter(({ id, special }) => special || id >= section.pieces.length);
  const markers = beyond.filter((t) => t.special).map((t) => [specialMarker(t.id), t] as const);
  const plain = beyond.filter((t) => !t.special).map((t) => [t.content, t] as const);
  const written = beyond.map((t) => [t.content, t] as const);
  const splits = [plain, written].map((some) => {
    const found = new Map([...some, ...markers]);
    return { found, matcher: new PieceMatcher(found.keys()) };
  });
  return {
    vocabularySize: [...tokens.keys()].reduce((a, b) => Math.max(a, b), -1) + 1,
    encode(text, special) {
      const { found, matcher } = splits[special ? 1 : 0];
      const encoded: number[] = [];
      let begin = 0;
      const flush = (part: string) => {
        const prefix = everywhere || begin === 0;
        for (const id of model.encode(part, { prefix })) encoded.push(id);
      };
      for (let at = 0; !matcher.isEmpty && at < text.length;) {
        const token = found.get(matcher.longest(text, at) ?? "");
        if (token === undefined) {
          at++;
          continue;
        }
        const before = text.slice(begin, at);
        flush(token.lstrip ? before.trimEnd() : before);
        encoded.push(token.id);
        at += matcher.longest(text, at)!.length;
        if (token.rstrip) at = text.length - text.slice(at).trimStart().length;
        begin = at;
      }
      flush(text.slice(begin));
      return encoded;
    },
    decode: (all) => model.decode(all, (id) => tokens.get(id)),
    token: (id) => tokens.get(id),
    id: (token) => ids.get(token),
  };
}
