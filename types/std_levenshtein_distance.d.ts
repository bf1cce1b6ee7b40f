/** What is used of `@std/text/levenshtein-distance`. */
export function levenshteinDistance(a: string, b: string): number;
