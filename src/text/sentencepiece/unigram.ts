/**
 * The most probable way to cut a text into pieces whose scores are log probabilities (SentencePiece, unigram_model.cc; Kudo,
 * "Subword Regularization", 2018, section 3.2): Viterbi, one character after another.
 *
 * @module
 */

/** The pieces that texts are cut into. */
export interface UnigramPieces {
  /** Pieces that occur in texts, by text; those that are not used left out. */
  readonly ids: ReadonlyMap<string, number>;
  readonly scores: ArrayLike<number>;
  readonly isUserDefined: (id: number) => boolean;
  /** Lowest and highest score of an ordinary piece. */
  readonly lowest: number;
  readonly highest: number;
  /** Length of the longest piece in UTF-16 units. */
  readonly longest: number;
}

/** What a character without a piece costs beyond the lowest score. */
const UNKNOWN_PENALTY = 10;

/** Cuts a normalised text into pieces; what has no piece stays single characters. Sums are kept in f32, as SentencePiece keeps them. */
export function cutByProbability(text: string, pieces: UnigramPieces): string[] {
  const { ids, scores, isUserDefined, lowest, highest, longest } = pieces;
  const best = new Float32Array(text.length + 1);
  const from = new Int32Array(text.length + 1).fill(-1);
  const unknown = Math.fround(lowest - UNKNOWN_PENALTY);
  const offer = (end: number, begin: number, score: number): void => {
    if (from[end] >= 0 && score <= best[end]) return;
    best[end] = score;
    from[end] = begin;
  };
  for (let begin = 0; begin < text.length;) {
    const character = text.codePointAt(begin)! > 0xffff ? 2 : 1;
    let isPiece = false;
    let bytes = 0;
    for (let end = begin; end < text.length && end - begin < longest;) {
      const point = text.codePointAt(end)!;
      end += point > 0xffff ? 2 : 1;
      bytes += point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
      const id = ids.get(text.slice(begin, end));
      if (id === undefined) continue;
      if (end - begin === character) isPiece = true;
      // A piece that someone has defined gets a bonus, so that it is always taken.
      const score = isUserDefined(id) ? Math.fround(bytes * highest) - 0.1 : scores[id];
      offer(end, begin, score + best[begin]);
    }
    if (!isPiece) offer(begin + character, begin, Math.fround(unknown + best[begin]));
    begin += character;
  }
  const cut: string[] = [];
  for (let end = text.length; end > 0; end = from[end]) cut.push(text.slice(from[end], end));
  return cut.reverse();
}
