/**
 * The small template language of the WGSL files under `kernels/`: constants, conditions, unrolled loops and texts that several share.
 *
 * WGSL has no way to repeat a statement at compile time, and a rolled inner loop costs two to three times an unrolled one
 * (each loop carries a hidden counter). All directives sit in `//#` comments or behind a `$`:
 *
 * - `$NAME` or `$(EXPRESSION)` is replaced by the value of an integer expression over constants and loop variables
 *   (`+ - * / % ( ) < <= > >= == != && ||`); a constant that is a string is replaced by its text.
 * - `//#if EXPRESSION`, `//#else`, `//#end` keep or drop lines. A word is compared with `==` and `!=`, as in `WEIGHT == f16`.
 * - `//#for NAME in A..B`, `//#end` repeat lines for NAME = A, A+1, ... B-1.
 * - `//#include NAME` puts the text of that name in its place, expanded with the constants and loop variables in reach there;
 *   `//#include NAME with A = EXPRESSION, B = WORD` with further ones.
 *
 * @module
 */
import { LimbeckError } from "../base/errors.ts";

/** Values of a template's constants. Booleans count as 0 and 1. */
export type TemplateConstants = Readonly<Record<string, number | string | boolean>>;

/** A WGSL template that cannot be expanded: names the kernel, the line and the directive. */
export class TemplateError extends LimbeckError {
  override readonly code = "kernel_template";
}

/** Texts that a template may include, by name. */
export type TemplateIncludes = Readonly<Record<string, string>>;

/** A line, and where it stands: `name.wgsl line 3`, with where that file was included. */
type Line = { readonly text: string; readonly where: string };

type Scope = ReadonlyMap<string, number | string | boolean>;

/** What was expanded before, by template and constants: a program asks for the same few kernels in every layer. */
const known = new Map<string, Map<string, string>>();

/**
 * Expands a kernel template into WGSL.
 *
 * @param name The kernel's name, for error messages
 * @param includes What its `//#include`s name
 * @throws {TemplateError} on an unknown constant or include, a malformed expression or an unclosed directive
 */
export function expandTemplate(
  name: string,
  source: string,
  constants: TemplateConstants,
  includes: TemplateIncludes = {},
): string {
  const key = JSON.stringify([constants, includes]);
  const ofSource = known.get(source) ?? new Map<string, string>();
  let text = ofSource.get(key);
  if (text === undefined) {
    text = new Expansion(includes).expand(name, source, constants);
    known.set(source, ofSource.set(key, text));
  }
  return text;
}

/** One template on its way to WGSL. */
class Expansion {
  readonly #includes: TemplateIncludes;
  readonly #out: string[] = [];
  /** The files that are being expanded, each included by the one before. */
  readonly #open: string[] = [];

  constructor(includes: TemplateIncludes) {
    this.#includes = includes;
  }

  expand(name: string, source: string, constants: TemplateConstants): string {
    this.#file(name, source, new Map(Object.entries(constants)), "");
    return this.#out.join("\n");
  }

  /** @param from Where the file is included, as a part of a sentence; empty for the template itself */
  #file(name: string, source: string, scope: Scope, from: string): void {
    this.#open.push(name);
    const lines = source.split("\n").map((text, i) => ({ text, where: `${name}.wgsl line ${i + 1}${from}` }));
    const end = this.#block(lines, 0, scope, true);
    if (end !== lines.length) {
      throw new TemplateError(`${lines[end]!.where}: //#end or //#else without a beginning`);
    }
    this.#open.pop();
  }

  /** Expands lines from `start` to the `//#end` or `//#else` that closes this block, and returns that line's index. */
  #block(lines: readonly Line[], start: number, scope: Scope, keep: boolean): number {
    let i = start;
    while (i < lines.length) {
      const { text, where } = lines[i]!;
      const directive = /^\s*\/\/#(\w+)\s*(.*)$/.exec(text);
      if (!directive) {
        if (keep) this.#out.push(substitute(lines[i]!, scope));
        i++;
        continue;
      }
      const [, verb, rest] = directive;
      if (verb === "end" || verb === "else") return i;
      if (verb === "include") {
        if (keep) this.#include(where, rest!, scope);
        i++;
      } else if (verb === "if") {
        const truth = keep && evaluateNumber(where, rest!, scope) !== 0;
        let close = this.#block(lines, i + 1, scope, keep && truth);
        if (/\/\/#else/.test(lines[close]?.text ?? "")) {
          close = this.#block(lines, close + 1, scope, keep && !truth);
        }
        if (close >= lines.length) throw new TemplateError(`${where}: //#if is never closed`);
        i = close + 1;
      } else if (verb === "for") {
        const range = /^(\w+)\s+in\s+(.+)\.\.(.+)$/.exec(rest!);
        if (!range) throw new TemplateError(`${where}: expected "//#for NAME in A..B"`);
        const from = keep ? evaluateNumber(where, range[2]!, scope) : 0;
        const to = keep ? evaluateNumber(where, range[3]!, scope) : 0;
        let close = -1;
        for (let k = from; k < to; k++) {
          close = this.#block(lines, i + 1, new Map(scope).set(range[1]!, k), keep);
        }
        if (close < 0) close = this.#block(lines, i + 1, scope, false);
        if (close >= lines.length) throw new TemplateError(`${where}: //#for is never closed`);
        i = close + 1;
      } else {
        throw new TemplateError(`${where}: unknown directive //#${verb}`);
      }
    }
    return i;
  }

  #include(where: string, rest: string, scope: Scope): void {
    const [, name, given] = /^(\w+)(?:\s+with\s+(.+))?$/.exec(rest.trim()) ?? [];
    if (name === undefined) {
      throw new TemplateError(
        `${where}: expected "//#include NAME" or "//#include NAME with A = 1, B = word"`,
      );
    }
    const text = this.#includes[name];
    if (text === undefined) {
      const names = Object.keys(this.#includes).join(", ") || "none";
      throw new TemplateError(
        `${where}: the kernel was given no text "${name}" to include (there are: ${names})`,
      );
    }
    if (this.#open.includes(name)) throw new TemplateError(`${where}: ${name} includes itself`);
    const inner = new Map(scope);
    for (const pair of given?.split(",") ?? []) {
      const [, constant, value] = /^\s*(\w+)\s*=(?!=)(.+)$/.exec(pair) ?? [];
      if (constant === undefined) throw new TemplateError(`${where}: expected "A = 1", not "${pair.trim()}"`);
      inner.set(constant, evaluate(where, value!, scope));
    }
    this.#file(name, text.replace(/\n$/, ""), inner, `, included at ${where}`);
  }
}

function substitute({ text, where }: Line, scope: Scope): string {
  if (!text.includes("$")) return text;
  return text.replace(
    /\$(?:([A-Za-z]\w*)|\(([^()]*(?:\([^()]*\)[^()]*)*)\))/g,
    (_, word, expression) => {
      if (word === undefined) return String(evaluateNumber(where, expression, scope));
      const value = scope.get(word);
      if (value === undefined) throw new TemplateError(`${where}: unknown constant $${word}`);
      return typeof value === "boolean" ? String(Number(value)) : String(value);
    },
  );
}

/** A word that is no constant is a mistake, not a truth. */
function toNumber(where: string, value: number | string): number {
  if (typeof value === "number") return value;
  throw new TemplateError(`${where}: "${value}" is no constant, or one that is not a number`);
}

function evaluateNumber(where: string, text: string, scope: Scope): number {
  return toNumber(where, evaluate(where, text, scope));
}

/** Evaluates an integer expression; a recursive-descent parser over a handful of operators. */
function evaluate(where: string, text: string, scope: Scope): number | string {
  const tokens = text.match(/\d+|[A-Za-z_]\w*|<=|>=|==|!=|&&|\|\||[-+*/%()<>!]/g) ?? [];
  if (tokens.join("") !== text.replace(/\s/g, "")) throw new TemplateError(`${where}: cannot read "${text}"`);
  let at = 0;
  const levels = [["||"], ["&&"], ["==", "!="], ["<", "<=", ">", ">="], ["+", "-"], ["*", "/", "%"]];
  const apply = (op: string, a: number | string, b: number | string): number => {
    if (op === "==") return Number(a === b);
    if (op === "!=") return Number(a !== b);
    const [x, y] = [toNumber(where, a), toNumber(where, b)];
    switch (op) {
      case "||":
        return Number(x !== 0 || y !== 0);
      case "&&":
        return Number(x !== 0 && y !== 0);
      case "<":
        return Number(x < y);
      case "<=":
        return Number(x <= y);
      case ">":
        return Number(x > y);
      case ">=":
        return Number(x >= y);
      case "+":
        return x + y;
      case "-":
        return x - y;
      case "*":
        return x * y;
      case "/":
        return Math.floor(x / y);
      default:
        return x % y;
    }
  };
  const primary = (): number | string => {
    const token = tokens[at++];
    if (token === undefined) throw new TemplateError(`${where}: expression "${text}" ends too early`);
    if (token === "(") {
      const value = binary(0);
      if (tokens[at++] !== ")") throw new TemplateError(`${where}: missing ) in "${text}"`);
      return value;
    }
    if (token === "!") return Number(toNumber(where, primary()) === 0);
    if (token === "-") return -toNumber(where, primary());
    if (/^\d/.test(token)) return Number(token);
    const value = scope.get(token);
    // A bare word that is no constant stands for itself, so that `//#if WEIGHT == f16` reads naturally.
    return value === undefined ? token : typeof value === "boolean" ? Number(value) : value;
  };
  const binary = (level: number): number | string => {
    if (level === levels.length) return primary();
    let left = binary(level + 1);
    while (levels[level]!.includes(tokens[at] ?? "")) left = apply(tokens[at++]!, left, binary(level + 1));
    return left;
  };
  const value = binary(0);
  if (at !== tokens.length) throw new TemplateError(`${where}: cannot read "${text}" from "${tokens[at]}"`);
  return value;
}
