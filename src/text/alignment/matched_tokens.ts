/**
 * Tokens that two vocabularies have in common.
 *
 * @module
 */
import type { TextTokenizer } from "../tokenizer.ts";
import { tokenBytes } from "./spell.ts";

/** Ids of tokens that stand for the same in both vocabularies, pair by pair, by rising id of the second. */
export interface MatchedTokens {
  readonly student: Int32Array;
  readonly teacher: Int32Array;
}

/**
 * Pairs the tokens of two vocabularies that have the same bytes, each token at most once: of several that have the same, one that is
 * written as text goes before one that is written as a byte, then the lower id. Special tokens pair by their part: BOS with BOS, the first
 * token that ends a text with the other's.
 */
export function matchedTokens(student: TextTokenizer, teacher: TextTokenizer): MatchedTokens {
  const own = tokensByBytes(student);
  const pairs: [student: number, teacher: number][] = [];
  for (const [bytes, id] of tokensByBytes(teacher)) {
    const match = own.get(bytes);
    if (match !== undefined) pairs.push([match, id]);
  }
  for (const part of [(t: TextTokenizer) => t.bosToken, (t: TextTokenizer) => t.eosTokens[0]]) {
    const [a, b] = [part(student), part(teacher)];
    const isNew = pairs.every(([x, y]) => x !== a && y !== b);
    if (a !== undefined && b !== undefined && isNew) pairs.push([a, b]);
  }
  pairs.sort((x, y) => x[1] - y[1]);
  return {
    student: Int32Array.from(pairs, ([id]) => id),
    teacher: Int32Array.from(pairs, ([, id]) => id),
  };
}

function tokensByBytes(tokenizer: TextTokenizer): Map<string, number> {
  const found = new Map<string, number>();
  const { spelling } = tokenizer;
  for (const alone of [false, true]) {
    for (let id = 0; id < tokenizer.vocabularySize; id++) {
      const token = tokenizer.tokenText(id);
      if (token === undefined || tokenizer.isSpecial(id)) continue;
      if (spelling?.isByteToken(id, token) !== alone) continue;
      const bytes = tokenBytes(tokenizer, id);
      if (bytes === undefined || bytes.length === 0) continue;
      const key = bytes.join();
      if (!found.has(key)) found.set(key, id);
    }
  }
  return found;
}
