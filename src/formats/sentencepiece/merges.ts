/**
 * Byte-pair merges from a vocabulary with scores.
 *
 * @module
 */
import { pieceType } from "./model.ts";

/**
 * The merges of a vocabulary with scores: every way to split a token into two tokens, the token of the highest score first,
 * equal scores by id, ways to split one token by the ids of the halves. Joining by rank is then joining by score.
 */
export function mergesFromScores(
  tokens: readonly string[],
  scores: ArrayLike<number>,
  types: ArrayLike<number>,
): [string, string][] {
  const mergeable = new Map<string, number>();
  for (const [id, token] of tokens.entries()) {
    if (types[id] === pieceType.normal || types[id] === pieceType.userDefined) mergeable.set(token, id);
  }
  const ranked = [...mergeable.values()].sort((a, b) => scores[b] - scores[a] || a - b);
  const merges: [string, string][] = [];
  for (const id of ranked) {
    const token = tokens[id];
    const splits: [left: number, right: number][] = [];
    let at = 0;
    for (const character of token) {
      at += character.length;
      const left = mergeable.get(token.slice(0, at));
      const right = mergeable.get(token.slice(at));
      if (left !== undefined && right !== undefined) splits.push([left, right]);
    }
    splits.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    for (const [left, right] of splits) merges.push([tokens[left], tokens[right]]);
  }
  return merges;
}
