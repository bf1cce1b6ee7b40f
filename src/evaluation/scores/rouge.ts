/**
 * ROUGE: how much of a reference a text has in common with it. C.-Y. Lin, "ROUGE: a package for automatic evaluation of summaries", 2004, as
 * Google's rouge-score computes it: lower case, every character but a-z and 0-9 parts words, and words of more than three characters are
 * stemmed where that is wanted. Letters with accents and scripts other than Latin therefore vanish; for such texts ROUGE says nothing.
 *
 * @module
 */
import { porterStem } from "./porter_stemmer.ts";

/** A score between 0 and 1, three ways. */
export interface RougeScore {
  readonly precision: number;
  readonly recall: number;
  /** Their harmonic mean; 0 where both are 0. */
  readonly f: number;
}

/** What is compared. */
export interface RougeOptions {
  /** Whether words are compared by their stems. */
  readonly stemmed?: boolean;
}

/** The scores of a text against a reference. */
export interface RougeScores {
  /** Words. */
  readonly rouge1: RougeScore;
  /** Pairs of words. */
  readonly rouge2: RougeScore;
  /** The longest common subsequence of words; line ends are spaces. */
  readonly rougeL: RougeScore;
  /** The same for each line of the reference against all lines of the text, united. */
  readonly rougeLsum: RougeScore;
}

/** The words that ROUGE sees. */
function rougeWords(text: string, { stemmed = false }: RougeOptions = {}): string[] {
  const words = text.toLowerCase().split(/[^a-z0-9]+/).filter((word) => word !== "");
  return stemmed ? words.map((word) => (word.length > 3 ? porterStem(word) : word)) : words;
}

/** All scores. */
export function rouge(reference: string, prediction: string, options: RougeOptions = {}): RougeScores {
  const [wanted, given] = [rougeWords(reference, options), rougeWords(prediction, options)];
  return {
    rouge1: ngramScore(wanted, given, 1),
    rouge2: ngramScore(wanted, given, 2),
    rougeL: subsequenceScore(wanted, given),
    rougeLsum: linesScore(lines(reference, options), lines(prediction, options)),
  };
}

/** ROUGE-L alone: what instruction-following is scored by in the Dolly, Self-Instruct and Vicuna protocols. */
export function rougeL(reference: string, prediction: string, options: RougeOptions = {}): RougeScore {
  return subsequenceScore(rougeWords(reference, options), rougeWords(prediction, options));
}

function lines(text: string, options: RougeOptions): string[][] {
  return text.split("\n").map((line) => rougeWords(line, options)).filter((words) => words.length > 0);
}

function score(common: number, reference: number, prediction: number): RougeScore {
  const precision = common / Math.max(1, prediction);
  const recall = common / Math.max(1, reference);
  const sum = precision + recall;
  return { precision, recall, f: sum > 0 ? 2 * precision * recall / sum : 0 };
}

function ngramScore(reference: readonly string[], prediction: readonly string[], n: number): RougeScore {
  const [wanted, given] = [ngrams(reference, n), ngrams(prediction, n)];
  let common = 0;
  for (const [ngram, count] of wanted) common += Math.min(count, given.get(ngram) ?? 0);
  return score(common, total(wanted), total(given));
}

function ngrams(words: readonly string[], n: number): Map<string, number> {
  const counts = new Map<string, number>();
  for (let i = 0; i + n <= words.length; i++) {
    const ngram = words.slice(i, i + n).join(" ");
    counts.set(ngram, (counts.get(ngram) ?? 0) + 1);
  }
  return counts;
}

function total(counts: ReadonlyMap<string, number>): number {
  return [...counts.values()].reduce((sum, count) => sum + count, 0);
}

function subsequenceScore(reference: readonly string[], prediction: readonly string[]): RougeScore {
  if (reference.length === 0 || prediction.length === 0) return score(0, 0, 0);
  let row = new Int32Array(prediction.length + 1);
  for (const word of reference) {
    const next = new Int32Array(prediction.length + 1);
    for (let j = 1; j <= prediction.length; j++) {
      next[j] = word === prediction[j - 1] ? row[j - 1]! + 1 : Math.max(row[j]!, next[j - 1]!);
    }
    row = next;
  }
  return score(row[prediction.length]!, reference.length, prediction.length);
}

/** Of each line of the reference the words that a longest common subsequence with any line of the text has, none used up twice. */
function linesScore(
  reference: readonly (readonly string[])[],
  prediction: readonly (readonly string[])[],
): RougeScore {
  if (reference.length === 0 || prediction.length === 0) return score(0, 0, 0);
  const left = [ngrams(reference.flat(), 1), ngrams(prediction.flat(), 1)] as const;
  let common = 0;
  for (const line of reference) {
    const places = new Set(prediction.flatMap((other) => commonPlaces(line, other)));
    for (const place of [...places].sort((a, b) => a - b)) {
      const word = line[place]!;
      if (!left.every((counts) => (counts.get(word) ?? 0) > 0)) continue;
      common++;
      for (const counts of left) counts.set(word, counts.get(word)! - 1);
    }
  }
  return score(common, reference.flat().length, prediction.flat().length);
}

/** Places in `line` of a longest common subsequence with `other`: of several the one that going back from both ends finds. */
function commonPlaces(line: readonly string[], other: readonly string[]): number[] {
  const width = other.length + 1;
  const lengths = new Int32Array((line.length + 1) * width);
  for (let i = 1; i <= line.length; i++) {
    for (let j = 1; j <= other.length; j++) {
      lengths[i * width + j] = line[i - 1] === other[j - 1]
        ? lengths[(i - 1) * width + j - 1]! + 1
        : Math.max(lengths[(i - 1) * width + j]!, lengths[i * width + j - 1]!);
    }
  }
  const places: number[] = [];
  let [i, j] = [line.length, other.length];
  while (i > 0 && j > 0) {
    if (line[i - 1] === other[j - 1]) {
      places.push(i - 1);
      i--;
      j--;
    } else if (lengths[i * width + j - 1]! > lengths[(i - 1) * width + j]!) j--;
    else i--;
  }
  return places;
}
