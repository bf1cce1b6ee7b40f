/**
 * What is said to someone who misspelt a name.
 *
 * @module
 */

/**
 * `; did you mean "x"?` for the nearest of `known`, or nothing where none is near.
 *
 * @example
 * ```ts
 * didYouMean("contxtLength", ["contextLength", "train"]); // '; did you mean "contextLength"?'
 * ```
 */
export function didYouMean(name: string, known: readonly string[]): string {
  const found = nearest(name, known);
  return found === undefined ? "" : `; did you mean "${found}"?`;
}

/** The name of `known` that was meant by a slip, or whose beginning was written; undefined where none is near. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  const wanted = name.slice(0, 100).toLowerCase();
  let best = "";
  let bestDistance = Infinity;
  for (const candidate of known) {
    const distance = editDistance(wanted, candidate.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  // A third of the letters wrong is still a slip; more is another word.
  if (bestDistance <= Math.max(1, Math.floor(Math.max(wanted.length, best.length) / 3))) return best;
  return wanted.length >= 3 ? known.find((k) => k.toLowerCase().startsWith(wanted)) : undefined;
}

/** What a name must be: `a, b or c`. */
export function oneOf(names: readonly string[]): string {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;
}

/** Levenshtein distance: insertions, deletions and replacements that make one text of the other. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + Number(a[i - 1] !== b[j - 1]));
    }
    row = next;
  }
  return row[b.length]!;
}
