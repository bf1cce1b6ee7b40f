/**
 * A JSON parser (RFC 8259) for headers that say where bytes lie. Where `JSON.parse` is lenient it refuses: a key that occurs
 * twice, an integer that a double cannot hold, half of a surrogate pair, nesting without bound. Objects become Maps, so
 * that `__proto__` is a key like any other.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";

/** What {@linkcode parseStrictJson} returns. */
export type StrictJson = null | boolean | number | string | StrictJson[] | Map<string, StrictJson>;

const deepest = 64;
const numberPattern = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
// deno-lint-ignore no-control-regex -- JSON forbids bare control characters in a string
const plainText = /[^"\\\u0000-\u001f]*/y;
const whitespace = /[ \t\n\r]*/y;
const escapes: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

/**
 * Parses `text` strictly.
 *
 * @param options.numbers With `"unsigned"` every number must be a plain unsigned integer, without sign, point or exponent.
 * @throws {InputError} with the position of what is wrong.
 */
export function parseStrictJson(
  text: string,
  where: string,
  options: { numbers?: "any" | "unsigned" } = {},
): StrictJson {
  let at = 0;

  function wrong(what: string): never {
    throw new InputError(`${what}, at character ${at}`, { where });
  }

  function match(pattern: RegExp): string {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0] ?? "";
    at += found.length;
    return found;
  }

  function accept(character: string): boolean {
    match(whitespace);
    if (text[at] !== character) return false;
    at++;
    return true;
  }

  function expect(character: string): void {
    if (!accept(character)) {
      wrong(
        at < text.length
          ? `expected ${character}, found ${JSON.stringify(text[at])}`
          : `expected ${character}`,
      );
    }
  }

  function parseString(): string {
    expect('"');
    let result = "";
    while (true) {
      result += match(plainText);
      const stop = text[at];
      if (stop === '"') break;
      if (stop !== "\\") {
        wrong(stop === undefined ? "a string does not end" : "a string holds a control character");
      }
      const escaped = text[++at];
      if (escaped === "u") {
        const digits = text.slice(at + 1, at + 5);
        if (!/^[0-9a-fA-F]{4}$/.test(digits)) wrong("\\u is not followed by four hexadecimal digits");
        result += String.fromCharCode(parseInt(digits, 16));
        at += 5;
      } else {
        const meaning = escaped === undefined ? undefined : escapes[escaped];
        if (meaning === undefined) wrong("a string holds an unknown escape");
        result += meaning;
        at++;
      }
    }
    at++;
    if (!result.isWellFormed()) wrong("a string holds half of a surrogate pair");
    return result;
  }

  function parseNumber(): number {
    const literal = match(numberPattern);
    if (literal === "") {
      wrong(at < text.length ? `unexpected ${JSON.stringify(text[at])}` : "a value is missing");
    }
    const value = Number(literal);
    const isInteger = /^-?[0-9]+$/.test(literal);
    if (options.numbers === "unsigned" && !/^[0-9]+$/.test(literal)) {
      wrong(`${literal} is not an unsigned integer`);
    }
    if (isInteger ? !Number.isSafeInteger(value) : !Number.isFinite(value)) {
      wrong(`the number ${literal} is too large to be held exactly`);
    }
    return value;
  }

  function parseObject(depth: number): Map<string, StrictJson> {
    expect("{");
    const object = new Map<string, StrictJson>();
    if (accept("}")) return object;
    do {
      const key = parseString();
      if (object.has(key)) wrong(`the key ${JSON.stringify(key)} occurs twice`);
      expect(":");
      object.set(key, parseValue(depth));
    } while (accept(","));
    expect("}");
    return object;
  }

  function parseArray(depth: number): StrictJson[] {
    expect("[");
    const array: StrictJson[] = [];
    if (accept("]")) return array;
    do {
      array.push(parseValue(depth));
    } while (accept(","));
    expect("]");
    return array;
  }

  function parseValue(depth: number): StrictJson {
    if (depth > deepest) wrong(`nested more than ${deepest} deep`);
    match(whitespace);
    switch (text[at]) {
      case "{":
        return parseObject(depth + 1);
      case "[":
        return parseArray(depth + 1);
      case '"':
        return parseString();
    }
    for (const [word, value] of [["true", true], ["false", false], ["null", null]] as const) {
      if (text.startsWith(word, at)) {
        at += word.length;
        return value;
      }
    }
    return parseNumber();
  }

  const value = parseValue(0);
  match(whitespace);
  if (at < text.length) wrong("there is more after the end");
  return value;
}
