/**
 * Groups of tokens of two tokenisations by least edit distance: for texts whose bytes the two sides do not spell alike.
 *
 * FuseLLM (Wan et al., arXiv 2401.10491) aligns two token sequences by dynamic time warping, the cost of a pair of tokens being the edit
 * distance of their strings without word marks. Its code was not at hand; this is our reading: costs are Levenshtein distances of bytes,
 * a space before them left out, steps go to the next token of either side or of both, of equal ways the one that goes to both is taken,
 * and tokens that the way joins are one group.
 *
 * @module
 */
import type { GroupSizes } from "./groups.ts";

/**
 * Groups of two token sequences; every token belongs to one.
 *
 * @param a Bytes of each token
 * @param b The same of the other side; empty where `a` is, and only there
 *
 * @example
 * ```ts
 * import { groupsByEditDistance } from "./edit_distance.ts";
 *
 * const bytes = (...tokens: string[]) => tokens.map((token) => new TextEncoder().encode(token));
 * groupsByEditDistance(bytes("the", " cat", "s"), bytes("the", " cats")); // [1, 1, 2, 1]
 * ```
 */
export function groupsByEditDistance(a: readonly Uint8Array[], b: readonly Uint8Array[]): GroupSizes {
  const [n, m] = [a.length, b.length];
  if (n === 0 || m === 0) return new Int32Array();
  const distance = distances(a, b);
  const totals = new Float64Array(n * m);
  const before = (i: number, j: number) => i < 0 || j < 0 ? Infinity : totals[i * m + j]!;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < m; j++) {
      const least = i + j === 0 ? 0 : Math.min(before(i - 1, j - 1), before(i - 1, j), before(i, j - 1));
      totals[i * m + j] = least + distance(i, j);
    }
  }
  const sizes: number[] = [];
  let [i, j, own, other] = [n - 1, m - 1, 1, 1];
  while (i > 0 || j > 0) {
    const [both, first, second] = [before(i - 1, j - 1), before(i - 1, j), before(i, j - 1)];
    if (both <= first && both <= second) {
      sizes.unshift(own, other);
      [i, j, own, other] = [i - 1, j - 1, 1, 1];
    } else if (first <= second) [i, own] = [i - 1, own + 1];
    else [j, other] = [j - 1, other + 1];
  }
  sizes.unshift(own, other);
  return Int32Array.from(sizes);
}

/** The edit distance of a token of each side; equal pairs of tokens are compared once. */
function distances(a: readonly Uint8Array[], b: readonly Uint8Array[]): (i: number, j: number) => number {
  const plain = (token: Uint8Array) => token[0] === 0x20 && token.length > 1 ? token.subarray(1) : token;
  const [left, right] = [distinct(a.map(plain)), distinct(b.map(plain))];
  const known = new Float64Array(left.tokens.length * right.tokens.length).fill(-1);
  return (i, j) => {
    const [x, y] = [left.places[i]!, right.places[j]!];
    const at = x * right.tokens.length + y;
    if (known[at]! < 0) known[at] = levenshtein(left.tokens[x]!, right.tokens[y]!);
    return known[at]!;
  };
}

function distinct(tokens: readonly Uint8Array[]): { tokens: Uint8Array[]; places: number[] } {
  const found = new Map<string, number>();
  const different: Uint8Array[] = [];
  const places = tokens.map((token) => {
    const key = token.join();
    const place = found.get(key) ?? different.push(token) - 1;
    found.set(key, place);
    return place;
  });
  return { tokens: different, places };
}

/** Least number of bytes put in, taken out or changed that makes one of the other. */
function levenshtein(a: Uint8Array, b: Uint8Array): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++) {
      next.push(Math.min(row[j]! + Number(a[i] !== b[j]), row[j + 1]! + 1, next[j]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
