/**
 * Where the tokens of a text end in its bytes.
 *
 * @module
 */
import { META_SPACE } from "../token_spelling.ts";
import type { TextTokenizer } from "../tokenizer.ts";

/** The bytes that tokens spell. */
export interface Spelling {
  /** What the tokens spell, without the space that some tokenizers put before a text. */
  readonly bytes: Uint8Array;
  /** Bytes up to the end of each token; never falling, since a token may have none: the space before a text, where it stays one by itself. */
  readonly ends: Int32Array;
}

/**
 * Spells a text's tokens.
 *
 * A token's bytes are those of its string in the vocabulary. The space that a tokenizer puts before every text (SentencePiece's dummy
 * prefix) is no part of the text: all ends are one less, none below 0. A token may end inside a character.
 *
 * @param text What was encoded
 * @param ids Its ids, without tokens put before or behind it
 * @returns undefined where a token has no bytes: the unknown token, and any token of a vocabulary that is not written in them
 *
 * @example
 * ```ts ignore
 * spell(llama, "a cat", llama.encode("a cat", { addBos: false }))?.ends; // [1, 5]: "▁a", "▁cat"
 * ```
 */
export function spell(tokenizer: TextTokenizer, text: string, ids: ArrayLike<number>): Spelling | undefined {
  const found = spellAll(tokenizer, ids);
  if (found === undefined || found.bytes[0] !== SPACE || !addsSpace(tokenizer, text)) return found;
  return { bytes: found.bytes.subarray(1), ends: found.ends.map((end) => Math.max(0, end - 1)) };
}

const SPACE = 0x20;

function spellAll(tokenizer: TextTokenizer, ids: ArrayLike<number>): Spelling | undefined {
  const ends = new Int32Array(ids.length);
  const parts: Uint8Array[] = [];
  let end = 0;
  for (let i = 0; i < ids.length; i++) {
    const bytes = tokenBytes(tokenizer, ids[i]!);
    if (bytes === undefined) return undefined;
    parts.push(bytes);
    ends[i] = end += bytes.length;
  }
  const bytes = new Uint8Array(end);
  parts.forEach((part, i) => bytes.set(part, ends[i]! - part.length));
  return { bytes, ends };
}

/** The bytes of a token, special ones written out; undefined for the unknown token and where the vocabulary is not written in bytes. */
export function tokenBytes(tokenizer: TextTokenizer, id: number): Uint8Array | undefined {
  const token = tokenizer.tokenText(id);
  if (token === undefined || id === tokenizer.unknownToken) return undefined;
  return tokenizer.spelling?.bytes(id, token);
}

/** Found by trying, since half a dozen settings decide: whether a tokenizer puts a space before texts that begin with one, and others. */
const habits = new WeakMap<TextTokenizer, Map<boolean, boolean>>();

function addsSpace(tokenizer: TextTokenizer, text: string): boolean {
  const begins = text.startsWith(" ") || (tokenizer.spelling?.kind === "metaspace" && text[0] === META_SPACE);
  const known = habits.get(tokenizer) ?? new Map<boolean, boolean>();
  habits.set(tokenizer, known);
  let adds = known.get(begins);
  if (adds === undefined) {
    const probe = begins ? " a" : "a";
    const spelt = spellAll(tokenizer, tokenizer.encode(probe, { addBos: false }));
    adds = spelt !== undefined && new TextDecoder().decode(spelt.bytes) === ` ${probe}`;
    known.set(begins, adds);
  }
  return adds;
}

/**
 * Bytes of the text that targets stand for; special tokens stand for none. The space that a tokenizer puts before a text is not counted, but
 * inside of a conversation it is, where one stands before a turn.
 */
export function supervisedBytes(
  tokenizer: TextTokenizer,
  { ids, supervised }: { readonly ids: Int32Array; readonly supervised: Uint8Array },
): number {
  let [bytes, isFirst] = [0, true];
  for (let i = 0; i < ids.length; i++) {
    if (tokenizer.isSpecial(ids[i]!)) continue;
    const own = tokenBytes(tokenizer, ids[i]!) ?? NONE;
    if (supervised[i]) bytes += own.length - Number(isFirst && own[0] === SPACE && addsSpace(tokenizer, "a"));
    isFirst = false;
  }
  return bytes;
}

const NONE = new Uint8Array();
