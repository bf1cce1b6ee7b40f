/**
 * Byte-pair encoding by score (SentencePiece, bpe_model.cc): of all neighbours that make a piece together, those with the highest score
 * join first, the leftmost of equal ones.
 *
 * @module
 */
import type { PieceMatcher } from "./normalizer.ts";

/** The pieces that texts are cut into. */
export interface BpePieces {
  /** Pieces that neighbours may join to, by text. */
  readonly ids: ReadonlyMap<string, number>;
  readonly scores: ArrayLike<number>;
  /** Pieces that are taken apart again in the end. */
  readonly isUnused: (id: number) => boolean;
  /** Pieces that join with nothing. */
  readonly userDefined: PieceMatcher;
}

/** Cuts a normalised text into pieces; what is left is single characters, with or without an id. */
export function cutByMerges(text: string, { ids, scores, isUnused, userDefined }: BpePieces): string[] {
  const symbols = symbolsOf(text, userDefined);
  const { begin, end, frozen, count } = symbols;
  const before = Int32Array.from({ length: count }, (_, i) => i - 1);
  const after = Int32Array.from({ length: count }, (_, i) => i + 1 < count ? i + 1 : -1);
  const agenda = new Agenda();
  const halves = new Map<string, number>();

  function consider(left: number, right: number): void {
    if (left < 0 || right < 0 || frozen[left] || frozen[right]) return;
    const piece = text.slice(begin[left], end[right]);
    const id = ids.get(piece);
    if (id === undefined) return;
    agenda.push({ left, right, length: end[right] - begin[left], score: scores[id] });
    // What a piece that is not used was made of: the last pair that was seen.
    if (isUnused(id)) halves.set(piece, end[left] - begin[left]);
  }

  for (let i = 1; i < count; i++) consider(i - 1, i);
  for (let pair = agenda.pop(); pair; pair = agenda.pop()) {
    const { left, right, length } = pair;
    // One of the two has been joined to something else since.
    if (begin[left] < 0 || begin[right] < 0) continue;
    if (end[left] - begin[left] + end[right] - begin[right] !== length) continue;
    end[left] = end[right];
    begin[right] = -1;
    after[left] = after[right];
    if (after[right] >= 0) before[after[right]] = left;
    consider(before[left], left);
    consider(left, after[left]);
  }

  const pieces: string[] = [];
  const emit = (piece: string): void => {
    const id = ids.get(piece);
    const half = id !== undefined && isUnused(id) ? halves.get(piece) : undefined;
    if (half === undefined) {
      pieces.push(piece);
    } else {
      emit(piece.slice(0, half));
      emit(piece.slice(half));
    }
  };
  for (let i = count > 0 ? 0 : -1; i >= 0; i = after[i]) emit(text.slice(begin[i], end[i]));
  return pieces;
}

/** The characters of a text, and the pieces in it that stay whole. */
function symbolsOf(text: string, userDefined: PieceMatcher) {
  const begin = new Int32Array(text.length);
  const end = new Int32Array(text.length);
  const frozen = new Uint8Array(text.length);
  let count = 0;
  for (let at = 0; at < text.length; count++) {
    const own = userDefined.longest(text, at);
    begin[count] = at;
    at += own?.length ?? (text.codePointAt(at)! > 0xffff ? 2 : 1);
    end[count] = at;
    frozen[count] = own === undefined ? 0 : 1;
  }
  return { begin, end, frozen, count };
}

/** Two neighbours that make a piece together. */
interface Pair {
  readonly left: number;
  readonly right: number;
  /** Of both, when they were found. */
  readonly length: number;
  readonly score: number;
}

/** Pairs in the order they join: a binary heap. */
class Agenda {
  readonly #heap: Pair[] = [];

  push(pair: Pair): void {
    const heap = this.#heap;
    let at = heap.push(pair) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(pair, heap[parent])) break;
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = pair;
  }

  pop(): Pair | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (heap.length === 0 || last === undefined) return first;
    let at = 0;
    for (let child = 1; child < heap.length; child = 2 * at + 1) {
      if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++;
      if (!isBefore(heap[child], last)) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(a: Pair, b: Pair): boolean {
  return a.score > b.score || (a.score === b.score && a.left < b.left);
}
