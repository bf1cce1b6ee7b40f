/**
 * Mistakes that are planted in a kernel by rule, whatever its text is: each statement left out, each bound one off, each term of an index
 * dropped, each lane, component, mask and clamp another. A new kernel, or a new variant of one, needs no list of its own.
 *
 * What unrolling repeats counts as one place, of which the last copy gets the mistake: a kernel that is wrong in its last row or column alone
 * is the hardest to notice. All mistakes of a kernel stand in one text, and a number says which of them is made: compiling is what costs.
 *
 * @module
 */

/** A mistake that a text can make. */
export interface Mutant {
  /** The number that makes it. */
  readonly number: number;
  /** Which of {@linkcode RULES} it comes from. */
  readonly rule: Rule;
  /** Its place among all mistakes of the text. */
  readonly at: number;
  /** The function, and what stands there; numbers of unrolled copies are `#`. */
  readonly place: string;
}

/** What is done to a kernel. */
export type Rule =
  | "left out" // a statement
  | "zero" // a value that has a name
  | "one more" // a whole number that has a name, or an index of an array
  | "never" // a branch
  | "always"
  | "a turn less" // of a loop
  | "at the edge" // < where <= is, and so on
  | "one bound alone" // of two
  | "first choice" // of select, min, max
  | "second choice"
  | "term dropped" // of a sum or a difference; what is taken apart by / or % stays whole
  | "no turn" // of what ^ spreads
  | "other lane" // of a subgroup
  | "own lane" // where all lanes of a subgroup share
  | "other component" // of a vector
  | "no barrier"
  | "all bits" // where some are shifted out or masked
  | "other size"; // than the launch says: one less, or half

/** A text with mistakes. */
export interface Mutated {
  readonly wgsl: string;
  readonly mutants: readonly Mutant[];
}

/** Options of {@linkcode mutate}. */
export interface MutateOptions {
  /** The number of the first mistake; at none of the numbers that follow, nothing is wrong. */
  readonly first: number;
  /** Where among the step's numbers the one that chooses stands. */
  readonly index: number;
  /** Whether a mistake is wanted, by its place among all, its rule, and where it is; all are by default. */
  readonly wanted?: (at: number, rule: Rule, place: string) => boolean;
  /** Which of the copies that unrolling makes get the mistake; the last by default. */
  readonly copy?: "every" | "last";
}

/** A piece of a function: a statement with its semicolon, or what stands before a brace. */
interface Piece {
  readonly start: number;
  readonly end: number;
  readonly inside: string;
  readonly isHeader: boolean;
}

/** A place for a mistake. `make` is given the place's text, with mistakes that lie within it, and the condition. */
interface Site {
  readonly rule: Rule;
  readonly start: number;
  readonly end: number;
  readonly make: (text: string, wrong: string) => string;
}

/** The text with every mistake that the rules find in it. Comments are gone. */
export function mutate(
  source: string,
  { first, index, wanted = () => true, copy = "last" }: MutateOptions,
): Mutated {
  const wgsl = source.replace(/\/\/.*/g, "");
  const facts = factsOf(wgsl);
  const found = new Map<string, { piece: number; site: Site }[]>();
  const pieces = piecesOf(wgsl);
  pieces.forEach((piece, p) => {
    const text = wgsl.slice(piece.start, piece.end);
    const after = pieces[p + 1];
    const next = piece.isHeader && after ? normalised(wgsl.slice(after.start, after.end)) : "";
    const seen = new Map<string, number>();
    for (const site of sitesOf(text, piece.isHeader, facts)) {
      const inner = text.slice(site.start, site.end);
      if (TWICE.has(site.rule) && facts.waiting.some((name) => inner.includes(`${name}(`))) continue;
      const what = normalised(text.slice(site.start, site.end));
      const where = normalised(text) + (text.startsWith("if (") ? ` { ${next}` : "");
      const key = `${site.rule}: ${piece.inside}: ${what}${what === where ? "" : ` in ${where}`}`;
      const nth = seen.get(key) ?? 0;
      seen.set(key, nth + 1);
      const full = `${key}${nth > 0 ? ` (${nth + 1})` : ""}`;
      if (!found.has(full)) found.set(full, []);
      found.get(full)!.push({ piece: p, site });
    }
  });

  const mutants: Mutant[] = [];
  const planted = new Map<number, { site: Site; number: number }[]>();
  const placeOf = (key: string) => key.slice(key.indexOf(": ") + 2);
  const all = [...found].map(([key, copies], at) => ({ key, place: placeOf(key), copies, at }));
  all.filter(({ place, copies, at }) => wanted(at, copies[0]!.site.rule, place)).forEach(
    ({ place, copies, at }, i) => {
      const number = first + i;
      // The last copy, but for those that have mistakes enough. Edges are met by the last alone.
      const { rule } = copies[0]!.site;
      const isEdge = rule === "at the edge" || rule === "other size" || pieces[copies[0]!.piece]!.isHeader;
      const load = (piece: number) => isEdge ? 0 : planted.get(piece)?.length ?? 0;
      const least = Math.min(...copies.map(({ piece }) => load(piece)));
      const last = copies.findLast(({ piece }) => load(piece) <= least + 1)!;
      for (const { piece, site } of copy === "every" ? copies : [last]) {
        if (!planted.has(piece)) planted.set(piece, []);
        planted.get(piece)!.push({ site, number });
      }
      mutants.push({ number, rule, at, place });
    },
  );

  let text = "";
  let at = 0;
  pieces.forEach((piece, p) => {
    text += wgsl.slice(at, piece.start);
    const choice = piece.inside === "main" ? "mistake" : "which";
    text += bounded(withSites(wgsl.slice(piece.start, piece.end), planted.get(p) ?? [], choice));
    at = piece.end;
  });
  text += wgsl.slice(at);
  return { wgsl: withChoice(text, index), mutants };
}

/**
 * The texts that each lack a barrier: a software driver waits at one in a branch whether it takes the branch or not, so no number can choose. Those
 * that are followed by the same are one place.
 */
export function withoutBarriers(source: string, copy: "every" | "last"): { place: string; wgsl: string }[] {
  const wgsl = source.replace(/\/\/.*/g, "");
  const pieces = piecesOf(wgsl);
  const barriers = pieces.flatMap(({ start, end, inside }, p) => {
    if (!/^\w+Barrier\(\);$/.test(wgsl.slice(start, end))) return [];
    const after = pieces[p + 1];
    const next = after ? normalised(wgsl.slice(after.start, after.end)) : "";
    return [{ place: `${inside}: before ${next}`, start, end }];
  });
  return [...Map.groupBy(barriers, ({ place }) => place)].map(([place, copies]) => {
    const gone = copy === "every" ? copies : copies.slice(-1);
    const without = (text: string, { start, end }: (typeof gone)[number]) =>
      text.slice(0, start) + text.slice(end);
    return { place, wgsl: leftInTime(gone.reduceRight(without, wgsl)) };
  });
}

/**
 * A text whose loops with barriers are left at the end of their last turn. As they are written, a software driver goes on until no thread is in
 * a turn, and waits at the barriers of that one as well: after the loop, none more would be missed.
 */
function leftInTime(wgsl: string): string {
  const at = [...wgsl.matchAll(/\bfor \(/g)].findLast(({ index }) => {
    const { body } = loopAt(wgsl, index);
    return /Barrier\(\);/.test(body) && !/\bcontinue;/.test(body);
  })?.index;
  if (at === undefined) return wgsl;
  const { header, body, end } = loopAt(wgsl, at);
  const [begin, condition, step] = header.split(";");
  const made =
    `{ ${begin}; if (${condition}) { loop { {${body}} ${step}; if (!(${condition})) { break; } } } }`;
  return leftInTime(wgsl.slice(0, at) + made + wgsl.slice(end));
}

/** The loop that begins at a place. */
function loopAt(wgsl: string, at: number): { header: string; body: string; end: number } {
  const open = wgsl.indexOf("(", at);
  const close = closing(wgsl, open);
  const first = wgsl.indexOf("{", close);
  let [end, depth] = [first + 1, 1];
  for (; depth > 0; end++) depth += wgsl[end] === "{" ? 1 : wgsl[end] === "}" ? -1 : 0;
  return { header: wgsl.slice(open + 1, close), body: wgsl.slice(first + 1, end - 1), end };
}

/** Turns of a thread's loops that begin where a kernel has found out, in all: a mistake may send one on for as many as the driver allows. */
const MOST_TURNS = 4000;

/** A loop that ends; those that begin at a number do so long before. */
function bounded(piece: string): string {
  return piece.replace(
    /^for \((var \w+ = [a-z][^;]*); (.*); /s,
    (_, begin, condition) => `for (${begin}; (${condition}) && goes_on(); `,
  );
}

/** Rules whose mistakes stand beside what is right. */
const TWICE: ReadonlySet<Rule> = new Set([
  ...["at the edge", "one bound alone", "first choice", "second choice", "term dropped", "all bits"] as const,
]);

/** What has to be known of a text as a whole. */
interface Facts {
  /** Arrays of memory, which are indexed by whole numbers. */
  readonly arrays: ReadonlySet<string>;
  /** Those of structures, and functions that make one: none has a number to change. */
  readonly structures: ReadonlySet<string>;
  /** Types of the sizes of a launch. */
  readonly sizes: ReadonlyMap<string, string>;
  /** Functions in which threads wait for each other: what calls one must not be written twice. */
  readonly waiting: readonly string[];
}

function factsOf(wgsl: string): Facts {
  const arrays = [...wgsl.matchAll(/var<(?:storage|workgroup)[^>]*> (\w+): array/g)].map(([, name]) => name!);
  const struct = /struct Size \{([^}]*)\}/.exec(wgsl)?.[1] ?? "";
  const sizes = [...struct.matchAll(/(\w+): (\w+)/g)].map(([, name, type]) => [name!, type!] as const);
  const structures = [...wgsl.matchAll(/(\w+): array<(?!vec|[fiu]32|[A-Z]\w*[^\w,>]|f16)([A-Z]\w*)/g)]
    .filter(([, , type]) => new RegExp(`struct ${type} `).test(wgsl)).map(([, name]) => name!);
  const makers = [...wgsl.matchAll(/\bfn (\w+)\([^)]*\) -> (\w+) \{/g)]
    .filter(([, , type]) => new RegExp(`struct ${type} `).test(wgsl)).map(([, name]) => name!);
  const waiting = [...wgsl.matchAll(/\bfn (?!main\b)(\w+)\([^{]*\{([^]*?)\n\}/g)]
    .filter(([, , body]) => /Barrier\(\);/.test(body!)).map(([, name]) => name!);
  return {
    arrays: new Set(arrays),
    structures: new Set([...structures, ...makers]),
    sizes: new Map(sizes),
    waiting,
  };
}

/** The statements of all functions. */
function piecesOf(wgsl: string): Piece[] {
  const pieces: Piece[] = [];
  for (const match of wgsl.matchAll(/\bfn (\w+)\(/g)) {
    // Functions that scalar expressions bring along are theirs to test.
    if (/_(f32|vec4)$/.test(match[1]!)) continue;
    let at = closing(wgsl, match.index + match[0].length - 1);
    at = wgsl.indexOf("{", at) + 1;
    let [start, depth] = [at, 1];
    for (; depth > 0; at++) {
      const c = wgsl[at]!;
      if (c === "(" || c === "[") at = closing(wgsl, at);
      if (!";{}".includes(c)) continue;
      const blank = /^\s*/.exec(wgsl.slice(start, at))![0].length;
      const isHeader = c === "{";
      const end = isHeader ? at : at + 1;
      if (c !== "}" && end - start - blank > 1) {
        pieces.push({ start: start + blank, end, inside: match[1]!, isHeader });
      }
      depth += c === "{" ? 1 : c === "}" ? -1 : 0;
      start = at + 1;
    }
  }
  return pieces;
}

/** Where the bracket that opens at `open` closes. */
function closing(text: string, open: number): number {
  let depth = 0;
  for (let at = open;; at++) {
    if ("([".includes(text[at]!)) depth++;
    if (")]".includes(text[at]!) && --depth === 0) return at;
    if (at >= text.length) throw new Error(`a bracket is left open: ${text.slice(open, open + 80)}`);
  }
}

/** Copies of what is unrolled have one form. */
function normalised(text: string): string {
  return text.replace(/\s+/g, " ").replace(/(?<![.\w])\d+(?=u?\b)(?!\.)|(?<=[A-Za-z_])\d+(_\d+)?(?=\b)/g, "#")
    .replace(
      /\b(vec|i|u|f)#(?=[<(])/g,
      (_, kind) => ({ vec: "vec4", i: "i32", u: "u32", f: "f32" })[kind as "vec"],
    )
    .replace(/<(i|u|f)#>/g, (_, kind) => kind === "i" ? "<i32>" : kind === "u" ? "<u32>" : "<f32>").trim();
}

function* sitesOf(text: string, isHeader: boolean, facts: Facts): Generator<Site> {
  const whole = { start: 0, end: text.length };
  const loop = /^for \((.*?); (.*?); (.*)\)\s*$/s.exec(text);
  if (loop) {
    const [, begin, condition, step] = loop as unknown as [string, string, string, string];
    const next = /^(\w+)(?:\+\+| ([-+*/])= (.*))$/s.exec(step)!;
    const after = condition.replace(
      new RegExp(`(?<!\\.)\\b${next[1]}\\b`, "g"),
      next[2] ? `(${next[1]} ${next[2]} (${next[3]}))` : `(${next[1]} + 1)`,
    );
    const at = text.indexOf(condition, begin.length);
    yield {
      rule: "a turn less",
      start: at,
      end: at + condition.length,
      make: (c, wrong) => `(${c}) && !(${wrong} && !(${after}))`,
    };
    yield* expressionSites(text.slice(0, at + condition.length), facts, false);
    return;
  }
  if (isHeader) {
    const branch = /^(?:else )?if \(/.exec(text);
    if (!branch) return;
    const inner = { start: branch[0].length, end: closing(text, branch[0].length - 1) };
    yield { rule: "never", ...inner, make: (c, wrong) => `(${c}) && !${wrong}` };
    yield { rule: "always", ...inner, make: (c, wrong) => `(${c}) || ${wrong}` };
    yield* expressionSites(text, facts, true);
    return;
  }
  const named = /^let (\w+) = /.exec(text);
  if (named) {
    const value = text.slice(named[0].length, -1);
    if (!isCondition(value) && !facts.structures.has(/^(\w+)[[(]/.exec(value)?.[1] ?? "")) {
      const change = (operation: string) => (t: string, wrong: string) =>
        `${t.replace(/^let /, "var ")} if ${wrong} { ${named[1]} ${operation}; }`;
      if (!/^0u?$/.test(value)) {
        yield { rule: "zero", ...whole, make: change(`-= ${named[1]}`) };
      }
      if (isWhole(value, facts)) yield { rule: "one more", ...whole, make: change("+= 1") };
    }
  } else if (/^(?!var |return|workgroupBarrier|continue|break)\w[^=!<>]*(\(|[^=!<>]=[^=])/s.test(text)) {
    yield { rule: "left out", ...whole, make: (t, wrong) => `if (!${wrong}) { ${t} }` };
  }
  yield* expressionSites(text, facts, true);
}

/** Whether a value is a condition, which has no number to change. */
function isCondition(value: string): boolean {
  let level = "";
  for (let at = 0; at < value.length; at++) {
    if ("([".includes(value[at]!)) at = closing(value, at);
    else level += value[at];
  }
  return / (<|>|<=|>=|==|!=|&&|\|\|) /.test(level);
}

/** Whether a value is surely made of whole numbers. */
function isWhole(value: string, { sizes }: Facts): boolean {
  if (/f32|f16|\d\.\d/.test(value)) return false;
  const types = [...value.matchAll(/\bsize\.(\w+)/g)].map(([, name]) => sizes.get(name!));
  return types.includes("u32") || /\b\d+u\b|[iu]32\(/.test(value);
}

const NEIGHBOURS: Readonly<Record<string, string>> = {
  "<": "<=",
  "<=": "<",
  ">": ">=",
  ">=": ">",
  "==": "!=",
  "!=": "==",
};

/** Mistakes within expressions. */
function* expressionSites(text: string, { arrays, sizes }: Facts, compares: boolean): Generator<Site> {
  // What is assigned to is a place, not a value.
  const assigned = /^(?!let |var |if|for|else|return)[\w.]+(\[.*?\])? [-+*/]?= /s.exec(text)?.[0].length ?? 0;
  if (compares) {
    for (const { 0: match, 1: operator, index } of text.matchAll(/ (<=|>=|<|>|==|!=) /g)) {
      const [start, end] = operands(text, index, match.length, COMPARED);
      const other = (t: string) => {
        const at = t.lastIndexOf(match, t.length);
        return t.slice(0, at) + ` ${NEIGHBOURS[operator!]} ` + t.slice(at + match.length);
      };
      const plain = text.slice(start, end);
      yield {
        rule: "at the edge",
        start,
        end,
        make: (t, wrong) => `select((${t}), (${other(plain)}), ${wrong})`,
      };
    }
    for (const { 0: match, index } of text.matchAll(/ (&&|&) /g)) {
      const [start, end] = operands(text, index, match.length, JOINED);
      const [a, b] = [text.slice(start, index), text.slice(index + match.length, end)];
      if (!/[<>=] /.test(a) || !/[<>=] /.test(b)) continue;
      yield { rule: "one bound alone", start, end, make: (t, wrong) => `select((${t}), (${a}), ${wrong})` };
      yield { rule: "one bound alone", start, end, make: (t, wrong) => `select((${t}), (${b}), ${wrong})` };
    }
    for (const { 0: match, index } of text.matchAll(/ [-+/%] /g)) {
      if (index < assigned) continue;
      const [start, end] = operands(text, index, match.length, "+-".includes(match[1]!) ? ADDED : DIVIDED);
      const a = text.slice(start, index);
      // Of a scalar and a vector neither may stand for the whole; and copies of what is unrolled begin at 0, where nothing would change.
      const b = text.slice(index + match.length, end);
      if (/^[\d.]+$/.test(a) || b.replace("u", "") === (match === " / " ? "1" : "0")) continue;
      yield { rule: "term dropped", start, end, make: (t, wrong) => `select(${t}, ${a}, ${wrong})` };
    }
  }
  for (const { 0: match, index } of text.matchAll(/ (>>|<<|&) /g)) {
    if (index < assigned) continue;
    const [start, end] = operands(text, index, match.length, SHIFTED);
    const a = text.slice(start, index);
    if (/ (<|>|<=|>=|==|!=) /.test(text.slice(start, end))) continue;
    yield { rule: "all bits", start, end, make: (t, wrong) => `select(${t}, ${a}, ${wrong})` };
  }
  for (const { 0: match, 1: name, index } of text.matchAll(/\b(select|min|max)\(/g)) {
    const end = closing(text, index + match.length - 1) + 1;
    const [a, b] = parts(text.slice(index + match.length, end - 1));
    // Of a scalar and a vector, neither is of the whole's type.
    for (const [rule, one] of [["first choice", a!], ["second choice", b!]] as const) {
      const same = name === "select" || !/^[\d.-]+$/.test(one);
      if (same) yield { rule, start: index, end, make: (t, wrong) => `select(${t}, ${one}, ${wrong})` };
    }
  }
  for (const { 0: match, index } of text.matchAll(/\([^()]*(?:\([^()]*\)[^()]*)* \^ \w+\)/g)) {
    const a = match.slice(1, match.lastIndexOf(" ^ "));
    yield {
      rule: "no turn",
      start: index,
      end: index + match.length,
      make: (t, wrong) => `select(${t}, ${a}, ${wrong})`,
    };
  }
  for (const { 0: match, index } of text.matchAll(/\bsubgroupBroadcast\(/g)) {
    const end = closing(text, index + match.length - 1) + 1;
    const [value, lane] = parts(text.slice(index + match.length, end - 1));
    const other = (Number.parseInt(lane!) + 1) % 8;
    yield {
      rule: "other lane",
      start: index,
      end,
      make: (t, wrong) => `select(${t}, subgroupBroadcast(${value}, ${other}u), ${wrong})`,
    };
  }
  for (const { 0: match, index } of text.matchAll(/\bsubgroup(Min|Max|Add)\(/g)) {
    const end = closing(text, index + match.length - 1) + 1;
    const value = text.slice(index + match.length, end - 1);
    yield { rule: "own lane", start: index, end, make: (t, wrong) => `select(${t}, ${value}, ${wrong})` };
  }
  for (const { 0: match, 1: name, 2: component, index } of text.matchAll(/(?<!\.)\b(\w+)\[(\d)\]/g)) {
    if (index < assigned || arrays.has(name!)) continue;
    const other = (Number(component) + 3) % 4;
    yield {
      rule: "other component",
      start: index,
      end: index + match.length,
      make: (t, wrong) => `select(${t}, ${name}[${other}], ${wrong})`,
    };
  }
  for (const { 0: match, 1: name, index } of text.matchAll(/\b(\w+)\[/g)) {
    const start = index + match.length;
    const end = closing(text, start - 1);
    if (!arrays.has(name!) || /^\d+u?$/.test(text.slice(start, end))) continue;
    yield { rule: "one more", start, end, make: (t, wrong) => `(${t}) + u32${wrong}` };
  }
  for (const { 0: match, 1: name, index } of text.matchAll(/\bsize\.(\w+)/g)) {
    const type = sizes.get(name!);
    if (type !== "u32" && type !== "f32") continue;
    yield {
      rule: "other size",
      start: index,
      end: index + match.length,
      make: (t, wrong) => type === "u32" ? `(${t} - u32${wrong})` : `(${t} * select(1.0, 0.5, ${wrong}))`,
    };
  }
}

/** What ends an operand, at the level of its brackets. */
const COMPARED = / (&&|\|\||&|=|[-+*/]=) |[,;]|^(let|var) \w+ = /;
const JOINED = / (\|\||=|[-+*/]=) |[,;]/;
const ADDED = / (&&|\|\||&|<|>|<=|>=|==|!=|=|[-+*/]=|<<|>>|\^) |[,;]/;
const SHIFTED = / (&&|\|\||\||<|>|<=|>=|==|!=|=|[-+*/&|]=|\^|[-+*/%]) |[,;]/;
const DIVIDED = / (&&|\|\||&|<|>|<=|>=|==|!=|=|[-+*/]=|<<|>>|\^|\+|-) |[,;]/;

/** The least range with both operands of an operator; sums and differences end at the next of their kind on the right. */
function operands(text: string, at: number, length: number, ends: RegExp): [start: number, end: number] {
  const least = text.startsWith("return ") ? 7 : 0;
  let start = at;
  let depth = 0;
  for (; start > least; start--) {
    const c = text[start - 1]!;
    if (")]".includes(c)) depth++;
    if ("([".includes(c) && --depth < 0) break;
    if (depth > 0) continue;
    // An operator, or a comma, that ends right here.
    const before = text.slice(Math.max(0, start - 4), start);
    const match = [...before.matchAll(new RegExp(ends, "g"))].at(-1);
    if (match && match.index + match[0].length === before.length) break;
  }
  while (text[start] === " ") start++;
  let end = at + length;
  const right = ends === ADDED
    ? /^( (&&|\|\||&|<|>|<=|>=|==|!=|\+|-|<<|>>|\^) |[,;])/
    : ends === DIVIDED || ends === SHIFTED
    ? /^( (&&|\|\||&|<|>|<=|>=|==|!=|[-+*/%]|<<|>>|\^) |[,;])/
    : ends === JOINED
    ? /^( (&&|\|\||&) |[,;])/
    : /^( (&&|\|\||&) |[,;])/;
  for (; end < text.length; end++) {
    const c = text[end]!;
    if ("([".includes(c)) end = closing(text, end);
    else if (")]".includes(c) || right.test(text.slice(end, end + 5))) break;
  }
  return [start, end];
}

/** Arguments of a call. */
function parts(text: string): string[] {
  const found: string[] = [];
  let start = 0;
  for (let at = 0; at <= text.length; at++) {
    if ("([".includes(text[at] ?? " ")) at = closing(text, at);
    if (at >= text.length || text[at] === ",") {
      found.push(text.slice(start, at).trim());
      start = at + 1;
    }
  }
  return found;
}

/** A piece with its mistakes: those that lie within others first. */
function withSites(text: string, planted: readonly { site: Site; number: number }[], choice: string): string {
  const order = planted.toSorted((a, b) =>
    a.site.start - b.site.start || (b.site.end - b.site.start) - (a.site.end - a.site.start)
  );
  const render = (from: number, to: number, list: typeof order): string => {
    let [result, at] = ["", from];
    for (let i = 0; i < list.length;) {
      const { site, number } = list[i]!;
      let last = i + 1;
      while (last < list.length && list[last]!.site.start < site.end) last++;
      const inner = render(site.start, site.end, list.slice(i + 1, last));
      result += text.slice(at, site.start) + site.make(inner, `(${choice} == ${number}.0)`);
      at = site.end;
      i = last;
    }
    return result + text.slice(at, to);
  };
  return render(0, text.length, order);
}

/** Declares the number that chooses a mistake, for all functions; it hangs on the group, which keeps Mesa from compiling a text for each of its values. */
function withChoice(wgsl: string, index: number): string {
  const group = /@builtin\(workgroup_id\) (\w+)/.exec(wgsl)?.[1];
  const main = wgsl.indexOf("{", closing(wgsl, wgsl.indexOf("(", wgsl.indexOf("fn main")))) + 1;
  const value = `step[${index >> 2}][${index % 4}]${
    group ? ` + select(0.0, 1.0, ${group}.x == 0xffffffffu)` : ""
  }`;
  const step = wgsl.includes("var<uniform> step:")
    ? ""
    : "@group(1) @binding(1) var<uniform> step: array<vec4<f32>, 64>;\n";
  // `enable` comes before everything.
  const enabled = /^(\s*enable [^;]*;)*/.exec(wgsl)![0].length;
  return `${wgsl.slice(0, enabled)}
${step}var<private> which: f32;
var<private> turns: u32;
fn goes_on() -> bool { turns += 1u; return turns < ${MOST_TURNS}u; }
${wgsl.slice(enabled, main)}
  let mistake = ${value};
  which = mistake;${wgsl.slice(main)}`;
}
