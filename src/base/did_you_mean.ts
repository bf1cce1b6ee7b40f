/**
 * Suggestions for misspelt names.
 *
 * @module
 */
// @ts-types="../../types/std_levenshtein_distance.d.ts"
import { levenshteinDistance } from "@std/text/levenshtein-distance";

/**
 * `; did you mean "x"?` for the nearest of `known`, or nothing where none is near.
 *
 * @example
 * ```ts
 * didYouMean("contxtLength", ["contextLength", "train"]); // '; did you mean "contextLength"?'
 * ```
 */
export function didYouMean(name: string, known: readonly string[]): string {
  const wanted = name.slice(0, 100).toLowerCase();
  let best = "";
  let bestDistance = Infinity;
  for (const candidate of known) {
    const distance = levenshteinDistance(wanted, candidate.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  // A third of the letters wrong is still a slip; more is another word.
  const near = bestDistance <= Math.max(1, Math.floor(Math.max(wanted.length, best.length) / 3));
  const completion = wanted.length >= 3 && known.find((k) => k.toLowerCase().startsWith(wanted));
  const found = near ? best : completion;
  return found ? `; did you mean "${found}"?` : "";
}
