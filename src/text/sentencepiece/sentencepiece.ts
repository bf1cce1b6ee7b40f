/**
 * SentencePiece: texts to ids and back, as its own library gives them. Control, unknown and byte pieces never match what stands in a
 * text.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { cutByMerges } from "./bpe.ts";
import { normalizerOf, PieceMatcher, SPACE } from "./normalizer.ts";
import { pieceType, type SentencePieceSection } from "./section.ts";
import { cutByProbability } from "./unigram.ts";

/** A SentencePiece model that encodes and decodes. */
export class SentencePiece {
  readonly #section: SentencePieceSection;
  readonly #normalize: (text: string, options: { prefix: boolean }) => string;
  readonly #cut: (normalized: string) => string[];
  readonly #unknown: number;
  /** What pieces of texts are looked up in. */
  readonly #ids: ReadonlyMap<string, number>;
  /** Ids of the 256 byte pieces. */
  readonly #bytes: readonly number[];

  /** @throws {InputError} pieces that contradict each other */
  constructor(section: SentencePieceSection, where: string) {
    this.#section = section;
    const { type, pieces, scores, types } = section;
    const isA = (kind: number) => (id: number) => types[id] === kind;
    const ids = new Map<string, number>();
    // Only merges may go by way of pieces that are not used.
    const matching: number[] = [pieceType.normal, pieceType.userDefined];
    if (type === "bpe") matching.push(pieceType.unused);
    for (const [id, piece] of pieces.entries()) if (matching.includes(types[id])) ids.set(piece, id);
    this.#ids = ids;
    this.#unknown = types.indexOf(pieceType.unknown);
    if (this.#unknown < 0) throw new InputError("the SentencePiece model has no unknown piece", { where });
    this.#bytes = Array.from({ length: 256 }, (_, byte) => pieces.indexOf(bytePiece(byte)));
    if (section.byteFallback && this.#bytes.some((id) => types[id] !== pieceType.byte)) {
      throw new InputError("the SentencePiece model falls back to bytes, but has no piece for some of them", {
        where,
      });
    }
    const userDefined = new PieceMatcher(pieces.filter((_, id) => types[id] === pieceType.userDefined));
    this.#normalize = normalizerOf(section.normalizer, userDefined, where);
    if (type === "bpe") {
      const merging = { ids, scores, isUnused: isA(pieceType.unused), userDefined };
      this.#cut = (text) => cutByMerges(text, merging);
    } else {
      const normal = scores.filter((_, id) => types[id] === pieceType.normal);
      const unigram = {
        ids,
        scores,
        isUserDefined: isA(pieceType.userDefined),
        lowest: normal.reduce((a, b) => Math.min(a, b), Infinity),
        highest: normal.reduce((a, b) => Math.max(a, b), -Infinity),
        longest: [...ids.keys()].reduce((length, piece) => Math.max(length, piece.length), 0),
      };
      this.#cut = (text) => cutByProbability(text, unigram);
    }
  }

  /** Ids of a text, nothing put before or behind it. @param options.prefix The dummy prefix, where the model has one (default true) */
  encode(text: string, options: { prefix?: boolean } = {}): number[] {
    const { byteFallback } = this.#section;
    const normalized = this.#normalize(text.toWellFormed(), { prefix: options.prefix ?? true });
    const found: number[] = [];
    let afterUnknown = false;
    for (const piece of normalized === "" ? [] : this.#cut(normalized)) {
      const id = this.#ids.get(piece);
      if (id !== undefined) found.push(id);
      else if (byteFallback) { for (const byte of utf8.encode(piece)) found.push(this.#bytes[byte]); }
      // Neighbouring unknown characters are one.
      else if (!afterUnknown) found.push(this.#unknown);
      afterUnknown = id === undefined && !byteFallback;
    }
    return found;
  }

  /**
   * The text of ids. Control pieces are written out, and do not count as text.
   *
   * @param beyond What ids that are no pieces are written as
   */
  decode(ids: readonly number[], beyond: (id: number) => string | undefined = () => undefined): string {
    const { pieces, types, unknownSurface, normalizer } = this.#section;
    const dropsSpace = normalizer.addDummyPrefix || normalizer.removeExtraWhitespaces;
    let text = "";
    let bytes: number[] = [];
    let begun = false;
    const flush = () => {
      text += decodeUtf8(bytes);
      begun ||= bytes.length > 0;
      bytes = [];
    };
    for (const id of ids) {
      const piece = pieces[id] ?? beyond(id) ?? "";
      if (types[id] === pieceType.byte) {
        bytes.push(parseInt(piece.slice(3, 5), 16));
        continue;
      }
      flush();
      if (types[id] === undefined || types[id] === pieceType.control) {
        text += piece;
      } else if (types[id] === pieceType.unknown) {
        text += unknownSurface;
        begun = true;
      } else {
        const isFirst: boolean = !begun && dropsSpace && piece.startsWith(SPACE);
        const shown: string = (isFirst ? piece.slice(1) : piece).replaceAll(SPACE, " ");
        text += shown;
        // Where extra spaces are removed, all of those at the beginning are.
        begun ||= shown !== "" || (isFirst && !normalizer.removeExtraWhitespaces);
      }
    }
    flush();
    return text;
  }
}

const utf8 = new TextEncoder();

function bytePiece(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
}

/** UTF-8 in which each byte that does not belong to a character becomes U+FFFD. */
function decodeUtf8(bytes: readonly number[]): string {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let text = "";
  for (let at = 0; at < bytes.length;) {
    const lead = bytes[at];
    const length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    try {
      text += decoder.decode(Uint8Array.from(bytes.slice(at, at + length)));
      at += length;
    } catch {
      text += "\ufffd";
      at++;
    }
  }
  return text;
}
