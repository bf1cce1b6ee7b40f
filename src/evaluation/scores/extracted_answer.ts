/**
 * The number that a worked answer comes to, as GSM8K and its like are scored: where it stands is told by marks that models and data sets
 * use, the strongest first.
 *
 * 1. `####`: the first number behind the last of them, on its line;
 * 2. `\boxed{`: the first number in the last of them;
 * 3. `answer is`, `answer are`, `answer:`, `answer =` in any case: the first number behind the last of them, on its line;
 * 4. the last number of all.
 *
 * A mark without a number counts for nothing. Fractions are not worked out, units and percent signs say nothing.
 *
 * @module
 */

/** A number with its sign and currency: digits in threes with commas, plain digits, or a point and digits. */
const NUMBER = new RegExp(
  // No part of a name or of a longer number; a sign right behind one is none.
  "(?<![\\p{L}\\p{Nd}_.])" +
    "(?:(?<![\\p{L}\\p{Nd}_.)\\]}])([-+\u2212]))?" +
    "(?:[$\u20ac\u00a3](-)?)?" +
    "((?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\\.[0-9]+)?|\\.[0-9]+)",
  "gu",
);

/**
 * The number that a text comes to, in {@linkcode normalNumber normal form}.
 *
 * @returns null where there is none
 */
export function extractedAnswer(text: string): string | null {
  return behindLast(text, /####/g) ?? boxed(text) ?? behindLast(text, /answer\s*(?:is|are|:|=)/gi) ??
    numbers(text).at(-1) ?? null;
}

/** Equal numbers have equal normal forms: no commas, no plus, no zeros in front or behind the point's digits, no negative zero. */
export function normalNumber(written: string): string {
  const negative = /^[-\u2212]/.test(written);
  const [whole = "", fraction = ""] = written.replace(/^[-+\u2212]/, "").replaceAll(",", "").split(".");
  const digits = whole.replace(/^0+(?=.)/, "") || "0";
  const behind = fraction.replace(/0+$/, "");
  const value = behind === "" ? digits : `${digits}.${behind}`;
  return negative && value !== "0" ? `-${value}` : value;
}

function numbers(text: string): string[] {
  return Array.from(text.matchAll(NUMBER), ([, sign = "", later = "", digits]) => {
    const negative = /[-\u2212]/.test(sign) || later !== "";
    return normalNumber((negative ? "-" : "") + digits!);
  });
}

function behindLast(text: string, mark: RegExp): string | undefined {
  const last = [...text.matchAll(mark)].at(-1);
  if (!last) return undefined;
  const [line] = text.slice(last.index + last[0].length).split("\n");
  return numbers(line!)[0];
}

function boxed(text: string): string | undefined {
  const at = text.lastIndexOf("\\boxed{");
  if (at < 0) return undefined;
  const inside = text.slice(at + "\\boxed{".length);
  let depth = 1;
  for (let i = 0; i < inside.length; i++) {
    if (inside[i] === "{") depth++;
    if (inside[i] === "}" && --depth === 0) return numbers(inside.slice(0, i))[0];
  }
  return numbers(inside)[0];
}
