/**
 * The Porter stemmer with the departures that ROUGE's reference implementation inherits: M. F. Porter, "An algorithm for suffix stripping",
 * Program 14(3), 1980, with the exceptions of NLTK's default mode (short words, `-ies` and `-ied` of four letters, `-y` behind one
 * consonant, `-fulli`, `-logi`, a list of irregular words). Stems are those of NLTK 3.10 on the words of ../shared/goldens/evaluation.
 *
 * @module
 */

const IRREGULAR: ReadonlyMap<string, string> = new Map(
  Object.entries({
    sky: ["sky", "skies"],
    die: ["dying"],
    lie: ["lying"],
    tie: ["tying"],
    news: ["news"],
    inning: ["innings", "inning"],
    outing: ["outings", "outing"],
    canning: ["cannings", "canning"],
    howe: ["howe"],
    proceed: ["proceed"],
    exceed: ["exceed"],
    succeed: ["succeed"],
  }).flatMap(([stem, words]) => words.map((word) => [word, stem] as const)),
);

/** The stem of a word in lower case. */
export function porterStem(word: string): string {
  const irregular = IRREGULAR.get(word);
  if (irregular !== undefined) return irregular;
  if (word.length <= 2) return word;
  return [plural, participle, finalY, doubleSuffix, shortSuffix, bareSuffix, finalE, finalL]
    .reduce((stem, step) => step(stem), word);
}

/** What takes a suffix's place, and of which stems. */
type Rule = readonly [suffix: string, replacement: string, fits?: (stem: string) => boolean];

const hasMeasure = (stem: string) => measure(stem) > 0;
const isLong = (stem: string) => measure(stem) > 1;

/** Applies the first rule whose suffix the word has; where the stem does not fit it, the word stays, whatever other rules say. */
function replaced(word: string, rules: readonly Rule[]): string {
  for (const [suffix, replacement, fits] of rules) {
    if (!word.endsWith(suffix)) continue;
    const stem = word.slice(0, word.length - suffix.length);
    return !fits || fits(stem) ? stem + replacement : word;
  }
  return word;
}

/** Step 1a. */
function plural(word: string): string {
  if (word.length === 4 && word.endsWith("ies")) return word.slice(0, -1);
  return replaced(word, [["sses", "ss"], ["ies", "i"], ["ss", "ss"], ["s", ""]]);
}

/** Step 1b. */
function participle(word: string): string {
  if (word.endsWith("ied")) return word.slice(0, word.length === 4 ? -1 : -2);
  if (word.endsWith("eed")) return replaced(word, [["eed", "ee", hasMeasure]]);
  const suffix = ["ed", "ing"].find((suffix) =>
    word.endsWith(suffix) && hasVowel(word.slice(0, word.length - suffix.length))
  );
  if (suffix === undefined) return word;
  const stem = word.slice(0, word.length - suffix.length);
  const completed = ["at", "bl", "iz"].find((end) => stem.endsWith(end));
  if (completed !== undefined) return `${stem}e`;
  if (endsDouble(stem)) return /[lsz]$/.test(stem) ? stem : stem.slice(0, -1);
  return measure(stem) === 1 && endsShort(stem) ? `${stem}e` : stem;
}

/** Step 1c. */
function finalY(word: string): string {
  return replaced(word, [["y", "i", (stem) => stem.length > 1 && isConsonant(stem, stem.length - 1)]]);
}

/** Step 2. */
function doubleSuffix(word: string): string {
  if (word.endsWith("alli") && hasMeasure(word.slice(0, -4))) return doubleSuffix(word.slice(0, -2));
  const ofMeasure = Object.entries({
    ...{ ational: "ate", tional: "tion", enci: "ence", anci: "ance", izer: "ize", bli: "ble", alli: "al" },
    ...{ entli: "ent", eli: "e", ousli: "ous", ization: "ize", ation: "ate", ator: "ate", alism: "al" },
    ...{ iveness: "ive", fulness: "ful", ousness: "ous", aliti: "al", iviti: "ive", biliti: "ble" },
    fulli: "ful",
  }).map(([suffix, replacement]): Rule => [suffix, replacement, hasMeasure]);
  return replaced(word, [...ofMeasure, ["logi", "log", () => hasMeasure(word.slice(0, -3))]]);
}

/** Step 3. */
function shortSuffix(word: string): string {
  const rules = Object.entries({
    ...{ icate: "ic", ative: "", alize: "al", iciti: "ic", ical: "ic", ful: "", ness: "" },
  });
  return replaced(word, rules.map(([suffix, replacement]): Rule => [suffix, replacement, hasMeasure]));
}

/** Step 4. */
function bareSuffix(word: string): string {
  const bare = (suffixes: string): Rule[] => suffixes.split(" ").map((suffix) => [suffix, "", isLong]);
  return replaced(word, [
    ...bare("al ance ence er ic able ible ant ement ment ent"),
    ["ion", "", (stem) => isLong(stem) && /[st]$/.test(stem)],
    ...bare("ou ism ate iti ous ive ize"),
  ]);
}

/** Step 5a. */
function finalE(word: string): string {
  return replaced(word, [["e", "", (stem) => isLong(stem) || (measure(stem) === 1 && !endsShort(stem))]]);
}

/** Step 5b. */
function finalL(word: string): string {
  return replaced(word, [["ll", "l", () => isLong(word.slice(0, -1))]]);
}

/** y is a consonant at the beginning and behind a vowel. */
function isConsonant(word: string, i: number): boolean {
  if ("aeiou".includes(word[i]!)) return false;
  return word[i] !== "y" || i === 0 || !isConsonant(word, i - 1);
}

/** m of [C](VC)^m[V]. */
function measure(stem: string): number {
  let count = 0;
  for (let i = 1; i < stem.length; i++) if (isConsonant(stem, i) && !isConsonant(stem, i - 1)) count++;
  return count;
}

function hasVowel(stem: string): boolean {
  return Array.from(stem, (_, i) => i).some((i) => !isConsonant(stem, i));
}

/** *d: two equal consonants. */
function endsDouble(word: string): boolean {
  const last = word.length - 1;
  return last >= 1 && word[last] === word[last - 1] && isConsonant(word, last);
}

/** *o: consonant, vowel, and a consonant other than w, x and y; or of two letters vowel and consonant. */
function endsShort(word: string): boolean {
  const n = word.length;
  if (n === 2) return !isConsonant(word, 0) && isConsonant(word, 1);
  return n > 2 && isConsonant(word, n - 3) && !isConsonant(word, n - 2) && isConsonant(word, n - 1) &&
    !/[wxy]$/.test(word);
}
