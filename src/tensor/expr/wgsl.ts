/**
 * Prints scalar expressions as WGSL over f32 or vec4<f32>, with common parts computed once.
 *
 * @module
 */
import { Condition, type Expression, ExpressionError, type ExpressionNode } from "./expression.ts";
import { type Helper, HELPERS, OPERATIONS } from "./operations.ts";

/** WGSL that stands for a leaf. */
export interface LeafCode {
  readonly code: string;
  /** 4 where it is a `vec4<f32>` or `vec4<bool>`, 1 where it is the same for all elements. */
  readonly width: 1 | 4;
}

/** Printed expressions. */
export interface PrintedExpressions {
  /** `let` lines that depend on nothing but leaves of width 1; may be moved out of a loop over elements. */
  readonly uniform: readonly string[];
  /** `let` lines that must stand where the leaves of width 4 are in scope; empty where all leaves have width 1. */
  readonly lines: readonly string[];
  /** One WGSL expression for each expression given. */
  readonly results: readonly LeafCode[];
  /** Helper functions that are called: pass them to {@linkcode helperFunctions}. */
  readonly helpers: ReadonlySet<string>;
}

/** Options of {@linkcode printWgsl}. */
export interface PrintOptions {
  /** Code of every variable, step scalar and flag, by name. */
  leaf(name: string): LeafCode;
  /** Begins the names of the `let`s, so that several prints can stand in one scope. */
  readonly prefix?: string;
}

/** A number as an f32 literal. @throws {ExpressionError} if f32 cannot hold it */
export function literal(value: number): string {
  const rounded = Math.fround(value);
  if (!Number.isFinite(rounded)) throw new ExpressionError(`the constant ${value} does not fit f32`);
  // The digits of the f64 are kept where they are enough: the compiler rounds them to the same f32.
  const text = rounded === 0 ? "0" : String(value);
  return value < 0 ? `(${text}f)` : `${text}f`;
}

/**
 * Prints expressions.
 *
 * A part that is used twice, and every largest part that depends on width-1 leaves alone, becomes a `let`.
 *
 * @throws {ExpressionError} if a constant does not fit f32
 */
export function printWgsl(expressions: readonly Expression[], options: PrintOptions): PrintedExpressions {
  const { leaf, prefix = "e" } = options;
  // Equal parts are one node from here on, whichever objects they were built from.
  const unique = new Map<string, ExpressionNode>();
  const ids = new Map<ExpressionNode, number>();
  const canonical = new Map<ExpressionNode, ExpressionNode>();
  const operandsOf = new Map<ExpressionNode, ExpressionNode[]>();
  const uses = new Map<ExpressionNode, number>();
  const width = new Map<ExpressionNode, 1 | 4>();
  const intern = (node: ExpressionNode): ExpressionNode => {
    if (node.kind === "detach") return intern(node.operands[0]!);
    const known = canonical.get(node);
    if (known) return known;
    const operands = node.operands.map(intern);
    const key = `${node.kind}|${node.value}|${node.name}|${operands.map((x) => ids.get(x)).join(",")}`;
    let found = unique.get(key);
    if (!found) {
      found = node;
      unique.set(key, node);
      ids.set(node, ids.size);
      operandsOf.set(node, operands);
      for (const x of operands) uses.set(x, (uses.get(x) ?? 0) + 1);
      width.set(node, widthOf(node, operands));
    }
    canonical.set(node, found);
    return found;
  };
  const widthOf = (node: ExpressionNode, operands: ExpressionNode[]): 1 | 4 => {
    if (node.kind === "constant") return 1;
    if (operands.length === 0) return leaf(node.name).width;
    return operands.some((x) => width.get(x) === 4) ? 4 : 1;
  };
  const roots = expressions.map(intern);
  for (const root of roots) uses.set(root, (uses.get(root) ?? 0) + 1);

  const uniform: string[] = [];
  const lines: string[] = [];
  const helpers = new Set<string>();
  const named = new Map<ExpressionNode, string>();
  const print = (node: ExpressionNode, inVector: boolean): string => {
    const name = named.get(node);
    if (name) return name;
    if (node.kind === "constant") return literal(node.value);
    const operands = operandsOf.get(node)!;
    if (operands.length === 0) return leaf(node.name).code;
    const vector = width.get(node) === 4;
    const { wgsl, helper, sameWidth } = OPERATIONS[node.kind as keyof typeof OPERATIONS];
    const codes = operands.map((x, i) => {
      const code = print(x, vector);
      // A scalar condition may choose between vectors; anything else is widened.
      const widen = sameWidth && vector && width.get(x) === 1 && !(node.kind === "select" && i === 0);
      return widen ? `vec4<${x instanceof Condition ? "bool" : "f32"}>(${code})` : code;
    });
    let code = wgsl(...codes);
    if (helper) {
      const suffix = vector ? "vec4" : "f32";
      code = code.replace(/_T\(/, `_${suffix}(`);
      helpers.add(`${helper}_${suffix}`);
    }
    if (uses.get(node)! > 1 || (inVector && !vector)) {
      const fresh = `${prefix}${named.size}`;
      (vector ? lines : uniform).push(`let ${fresh} = ${code};`);
      named.set(node, fresh);
      return fresh;
    }
    return code;
  };
  const results = roots.map((root) => ({ code: print(root, false), width: width.get(root)! }));
  return { uniform, lines, results, helpers };
}

/** WGSL of the helper functions, each once and after those it calls. */
export function helperFunctions(helpers: Iterable<string>): string {
  const sources = new Map<string, string>();
  const define = (helper: Helper, suffix: string) => {
    const key = `${helper}_${suffix}`;
    if (sources.has(key)) return;
    const { source, needs } = HELPERS[helper];
    if (needs) define(needs, suffix);
    const type = suffix === "vec4" ? "vec4<f32>" : "f32";
    sources.set(key, source.replaceAll("SUFFIX", suffix).replace(/\bT\b/g, type));
  };
  for (const name of helpers) {
    const [helper, suffix] = name.split("_") as [Helper, string];
    define(helper, suffix);
  }
  return [...sources.values()].join("\n");
}
