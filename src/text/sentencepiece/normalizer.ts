/**
 * How SentencePiece rewrites a text before it looks for pieces (its normalizer.cc): a map of characters, spaces, the dummy prefix.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { SentencePieceSection } from "./section.ts";

/** What stands for a space in pieces. */
export const SPACE = "\u2581";

/** A map of texts to texts: a double-array trie over UTF-8 (darts-clone's layout), whose leaves point at texts that end in NUL. */
export class CharacterMap {
  readonly #units: Uint32Array;
  readonly #texts: Uint8Array;
  readonly #where: string;
  readonly #found = new Map<number, string>();

  /** @param blob u32 length of the trie in bytes, the trie, the texts */
  constructor(blob: Uint8Array, where: string) {
    this.#where = where;
    const size = blob.length < 4 ? -1 : new DataView(blob.buffer, blob.byteOffset).getUint32(0, true);
    if (size < 4 || size % 4 !== 0 || size > blob.length - 4) {
      throw new InputError("the normalizer's character map is damaged", { where });
    }
    this.#units = new Uint32Array(blob.slice(4, 4 + size).buffer);
    this.#texts = blob.subarray(4 + size);
  }

  /** The longest entry that `text` has at `at`: how many UTF-16 units it takes, and what they become. */
  longest(text: string, at: number): { length: number; text: string } | undefined {
    const units = this.#units;
    let node = offsetOf(units[0]);
    let leaf = -1;
    let length = 0;
    for (let next = at; next < text.length;) {
      const point = text.codePointAt(next)!;
      next += point > 0xffff ? 2 : 1;
      const bytes = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
      let unit = 0;
      for (let i = 0; i < bytes; i++) {
        const byte = utf8Byte(point, i, bytes);
        node ^= byte;
        unit = units[node] ?? 0;
        if (((unit & 0x800000ff) >>> 0) !== byte) return this.#entry(leaf, length);
        node ^= offsetOf(unit);
      }
      if (unit >>> 8 & 1) {
        leaf = node < units.length ? units[node] & 0x7fffffff : this.#texts.length;
        length = next - at;
      }
    }
    return this.#entry(leaf, length);
  }

  #entry(leaf: number, length: number): { length: number; text: string } | undefined {
    if (leaf < 0) return undefined;
    let text = this.#found.get(leaf);
    if (text === undefined) {
      const end = this.#texts.indexOf(0, leaf);
      if (end < 0) throw new InputError("the normalizer's character map is damaged", { where: this.#where });
      text = new TextDecoder().decode(this.#texts.subarray(leaf, end));
      this.#found.set(leaf, text);
    }
    return { length, text };
  }
}

function offsetOf(unit: number): number {
  return (unit >>> 10 << ((unit & 0x200) >>> 6)) >>> 0;
}

function utf8Byte(point: number, i: number, count: number): number {
  if (count === 1) return point;
  const six = point >>> 6 * (count - 1 - i);
  return i === 0 ? 0xf00 >>> count & 0xff | six : 0x80 | six & 63;
}

/** Finds the longest of some pieces at a place of a text. */
export class PieceMatcher {
  readonly #byFirst = new Map<string, string[]>();

  constructor(pieces: Iterable<string>) {
    for (const piece of [...pieces].sort((a, b) => b.length - a.length)) {
      const first = piece[0];
      if (first !== undefined) this.#byFirst.set(first, [...this.#byFirst.get(first) ?? [], piece]);
    }
  }

  get isEmpty(): boolean {
    return this.#byFirst.size === 0;
  }

  longest(text: string, at: number): string | undefined {
    return this.#byFirst.get(text[at])?.find((piece) => text.startsWith(piece, at));
  }
}

/** Makes the function that rewrites texts. @param userDefined Pieces that stay as they are */
export function normalizerOf(
  { charsmap, ...rules }: SentencePieceSection["normalizer"],
  userDefined: PieceMatcher,
  where: string,
): (text: string, options: { prefix: boolean }) => string {
  const map = charsmap === "" ? undefined : new CharacterMap(bytesOf(charsmap, where), where);
  const { addDummyPrefix, removeExtraWhitespaces, escapeWhitespaces, whitespaceAsSuffix } = rules;
  const space = escapeWhitespaces ? SPACE : " ";

  /** What stands at `at`, rewritten, and how much of the text it was. */
  function part(text: string, at: number): { length: number; text: string } {
    const own = userDefined.longest(text, at);
    if (own !== undefined) return { length: own.length, text: own };
    const mapped = map?.longest(text, at);
    if (mapped) return mapped;
    const character = String.fromCodePoint(text.codePointAt(at)!);
    return { length: character.length, text: character };
  }

  function rewritten(text: string): string {
    if (!map && userDefined.isEmpty && !removeExtraWhitespaces) return text.replaceAll(" ", space);
    const parts: string[] = [];
    let afterSpace = removeExtraWhitespaces;
    for (let at = 0; at < text.length;) {
      const found = part(text, at);
      at += found.length;
      const kept = afterSpace ? found.text.replace(/^ +/, "") : found.text;
      if (kept !== "") parts.push(kept.replaceAll(" ", space));
      if (removeExtraWhitespaces && kept !== "") afterSpace = kept.endsWith(" ");
    }
    const whole = parts.join("");
    return removeExtraWhitespaces ? withoutTrailing(whole, space) : whole;
  }

  return (text, { prefix }) => {
    if (text === "") return "";
    const whole = rewritten(text);
    // Of a text of nothing but spaces that are removed, nothing is left to put a prefix before.
    if (removeExtraWhitespaces && whole === "") return "";
    if (!addDummyPrefix || !prefix) return whole;
    return whitespaceAsSuffix ? whole + space : space + whole;
  };
}

function withoutTrailing(text: string, space: string): string {
  let end = text.length;
  while (end > 0 && text[end - 1] === space) end--;
  return text.slice(0, end);
}

function bytesOf(base64: string, where: string): Uint8Array {
  try {
    return Uint8Array.fromBase64(base64);
  } catch (cause) {
    throw new InputError("the normalizer's character map is not base64", { where, cause });
  }
}
