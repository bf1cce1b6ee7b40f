/**
 * Tokens of two vocabularies that stand for nearly the same: FuseLLM (Wan et al., arXiv 2401.10491) gives a token that the other vocabulary
 * does not have to the one of least edit distance, such as `gets` to `get`. Here they are one edit of a byte apart at the most, of three bytes
 * or more, and each token belongs to one other.
 *
 * @module
 */
import type { TextTokenizer } from "../tokenizer.ts";
import type { MatchedTokens } from "./matched_tokens.ts";
import { tokenBytes } from "./spell.ts";

/** Bytes from which on a token is compared: of shorter ones an edit leaves too little. */
const SHORTEST = 3;

/**
 * Pairs of tokens beside those that are the same: for each of the teacher's, by rising id, the student's of the lowest id that is one edit
 * away and not yet taken.
 */
export function nearestTokens(
  student: TextTokenizer,
  teacher: TextTokenizer,
  same: MatchedTokens,
): MatchedTokens {
  const own = unmatched(student, same.student);
  const byRest = new Map<string, number[]>();
  for (const [id, token] of own) {
    for (const rest of rests(token)) {
      const found = byRest.get(rest);
      if (found) found.push(id);
      else byRest.set(rest, [id]);
    }
  }
  const taken = new Set<number>();
  const pairs: [student: number, teacher: number][] = [];
  for (const [id, token] of unmatched(teacher, same.teacher)) {
    const near = [...rests(token)].flatMap((rest) => byRest.get(rest) ?? [])
      .filter((other) => !taken.has(other) && isOneEdit(own.get(other)!, token));
    if (near.length === 0) continue;
    const nearest = Math.min(...near);
    taken.add(nearest);
    pairs.push([nearest, id]);
  }
  return {
    student: Int32Array.from(pairs, ([id]) => id),
    teacher: Int32Array.from(pairs, ([, id]) => id),
  };
}

/** The bytes of tokens that have no partner, as characters, by rising id. */
function unmatched(tokenizer: TextTokenizer, matched: Int32Array): Map<number, string> {
  const known = new Set(matched);
  const found = new Map<number, string>();
  for (let id = 0; id < tokenizer.vocabularySize; id++) {
    if (known.has(id) || tokenizer.tokenText(id) === undefined || tokenizer.isSpecial(id)) continue;
    const bytes = tokenBytes(tokenizer, id);
    if (bytes && bytes.length >= SHORTEST) found.set(id, String.fromCharCode(...bytes));
  }
  return found;
}

/** A token, and it without each of its bytes. Of two that are one edit apart, some are the same. */
function rests(token: string): Set<string> {
  return new Set([token, ...Array.from(token, (_, i) => token.slice(0, i) + token.slice(i + 1))]);
}

/** Whether two different tokens become the same by a byte put in, taken out or changed. */
function isOneEdit(a: string, b: string): boolean {
  const [short, long] = a.length <= b.length ? [a, b] : [b, a];
  if (long.length - short.length > 1) return false;
  let at = 0;
  while (at < short.length && short[at] === long[at]) at++;
  return short.slice(at + (short.length === long.length ? 1 : 0)) === long.slice(at + 1);
}
