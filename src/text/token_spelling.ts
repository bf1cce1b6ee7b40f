/**
 * Which bytes of a text a token stands for: what tokens of different vocabularies have in common.
 *
 * @module
 */
import { isObject } from "../base/json.ts";
import type { TokenizerJson } from "./tokenizer_json.ts";

/** How the vocabulary of a tokenizer writes bytes; undefined where a token has no bytes of its own, such as WordPiece's `##ing`. */
export class TokenSpelling {
  /**
   * `byte-level`: each character of a token is a byte (GPT-2's table). `metaspace`: U+2581 is a space, as SentencePiece writes it.
   * `plain`: a token is its own text.
   */
  readonly kind: "byte-level" | "metaspace" | "plain";
  /** Whether `<0x41>` is a byte. */
  readonly byteFallback: boolean;
  readonly #added: ReadonlyMap<number, string>;

  private constructor(kind: TokenSpelling["kind"], byteFallback: boolean, json: TokenizerJson) {
    [this.kind, this.byteFallback] = [kind, byteFallback];
    this.#added = new Map(json.added_tokens.map(({ id, content }) => [id, content]));
  }

  /** Reads it off the components of a tokenizer. */
  static of(json: TokenizerJson): TokenSpelling | undefined {
    const { model, decoder, pre_tokenizer, sentencepiece } = json;
    const parts = [...components(decoder, "decoders"), ...components(pre_tokenizer, "pretokenizers")];
    const has = (type: string) => parts.some((part) => part.type === type);
    const suffix = model.end_of_word_suffix;
    if (model.type === "WordPiece" || has("WordPiece") || has("BPEDecoder")) return undefined;
    if (typeof suffix === "string" && suffix !== "") return undefined;
    const isSpace = parts.some(({ type, pattern, content }) =>
      type === "Replace" && isObject(pattern) && pattern.String === META_SPACE && content === " "
    );
    const kind = has("ByteLevel")
      ? "byte-level"
      : sentencepiece || has("Metaspace") || isSpace
      ? "metaspace"
      : "plain";
    return new TokenSpelling(kind, model.byte_fallback === true || has("ByteFallback"), json);
  }

  /**
   * The bytes of a token.
   *
   * @param token As the vocabulary writes it
   * @returns undefined for a character that the byte table of a byte-level vocabulary lacks
   */
  bytes(id: number, token: string): Uint8Array | undefined {
    const added = this.#added.get(id);
    if (added !== undefined && !this.#isByte(added)) return encoder.encode(this.#spaced(added));
    if (this.kind === "byte-level") return fromByteTable(token);
    if (this.#isByte(token)) return Uint8Array.of(Number.parseInt(token.slice(3, 5), 16));
    return encoder.encode(this.#spaced(token));
  }

  /** Whether a token is one byte that has no character, as byte fallback writes it. */
  isByteToken(id: number, token: string): boolean {
    return this.#isByte(this.#added.get(id) ?? token);
  }

  #isByte(token: string): boolean {
    return this.byteFallback && /^<0x[0-9A-Fa-f]{2}>$/.test(token);
  }

  #spaced(token: string): string {
    return this.kind === "metaspace" ? token.replaceAll(META_SPACE, " ") : token;
  }
}

/** How SentencePiece writes a space. */
export const META_SPACE = "\u2581";

const encoder = new TextEncoder();

/** A component and all that are inside of it. */
function components(part: Record<string, unknown> | null, children: string): Record<string, unknown>[] {
  if (part === null) return [];
  const list = part.type === "Sequence" ? part[children] as Record<string, unknown>[] : [];
  return [part, ...list.flatMap((child) => components(child, children))];
}

/** Characters that GPT-2's table gives to bytes: printable Latin ones are themselves, the others come from U+0100 on. */
const BYTE_OF = new Map<string, number>();
{
  const isItself = (b: number) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let next = 256;
  for (let b = 0; b < 256; b++) BYTE_OF.set(String.fromCharCode(isItself(b) ? b : next++), b);
}

function fromByteTable(token: string): Uint8Array | undefined {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = BYTE_OF.get(token[i]!);
    if (byte === undefined) return undefined;
    bytes[i] = byte;
  }
  return bytes;
}
