/**
 * Groups of tokens of two tokenisations that stand for the same bytes of a text.
 *
 * @module
 */

/** Tokens of a group on one side above which no loss looks at it: the product of so many probabilities says nothing. */
export const MOST_TOKENS = 64;

/** Sizes of groups, in order: tokens of the first tokenisation, tokens of the second, and so on. */
export type GroupSizes = Int32Array;

/**
 * The smallest groups that cover the same bytes: one closes wherever a token of each side ends at the same byte, so each has at least
 * one token of either side. Two tokens without bytes at the start pair with each other; one alone belongs to the group of the token after it.
 *
 * @param a Bytes up to the end of each token, never falling; see `spell`
 * @param b The same of the other tokenisation of the same bytes
 * @throws {RangeError} ends that are not of the same bytes
 *
 * @example
 * ```ts
 * import { groupsByEnds } from "./groups.ts";
 *
 * groupsByEnds([1, 3, 5], [3, 4, 5]); // [2, 1, 1, 2]: two tokens beside one, then one beside two
 * ```
 */
export function groupsByEnds(a: ArrayLike<number>, b: ArrayLike<number>): GroupSizes {
  const sizes: number[] = [];
  let [i, j, from, beside] = [0, 0, 0, 0];
  while (i < a.length && j < b.length) {
    if (a[i]! < b[j]!) i++;
    else if (a[i]! > b[j]!) j++;
    else {
      [i, j] = [i + 1, j + 1];
      sizes.push(i - from, j - beside);
      [from, beside] = [i, j];
    }
  }
  if (from !== a.length || beside !== b.length) {
    throw new RangeError("the tokens of the two sides do not end at the same byte");
  }
  return Int32Array.from(sizes);
}
