/**
 * What each operation of a scalar expression computes: in f64, and as WGSL over f32 or vec4<f32>.
 *
 * @module
 */

import { erf, ERF_WGSL } from "./error_function.ts";

/** Names of the operations. */
export type Operation =
  | "add"
  | "sub"
  | "mul"
  | "div"
  | "neg"
  | "exp"
  | "log"
  | "log1p"
  | "expm1"
  | "sqrt"
  | "abs"
  | "sign"
  | "sigmoid"
  | "tanh"
  | "erf"
  | "min"
  | "max"
  | "logAddExp"
  | "select"
  | "detach"
  | "less"
  | "lessOrEqual"
  | "equal"
  | "and"
  | "or"
  | "not";

/** One operation. Conditions are 0 and 1 in f64, `bool` in WGSL. */
export interface OperationRule {
  /** The value in f64. */
  evaluate(...operands: number[]): number;
  /** WGSL of the operation on operands that are printed already and put in brackets where needed. */
  wgsl(...operands: string[]): string;
  /** A function of {@linkcode HELPERS} that `wgsl` calls. `wgsl` writes its name followed by `_T`, the operand type. */
  readonly helper?: Helper;
  /** WGSL has no form that mixes a scalar and a vector operand. */
  readonly sameWidth?: boolean;
}

/** Functions that WGSL lacks or rounds too coarsely. */
export type Helper = "log1p" | "expm1" | "sigmoid" | "logAddExp" | "tanh" | "erf";

const infix = (symbol: string) => (a: string, b: string) => `(${a} ${symbol} ${b})`;
const call = (name: string) => (...operands: string[]) => `${name}(${operands.join(", ")})`;

/** Every operation by name. */
export const OPERATIONS: Readonly<Record<Operation, OperationRule>> = {
  add: { evaluate: (a, b) => a! + b!, wgsl: infix("+") },
  sub: { evaluate: (a, b) => a! - b!, wgsl: infix("-") },
  mul: { evaluate: (a, b) => a! * b!, wgsl: infix("*") },
  div: { evaluate: (a, b) => a! / b!, wgsl: infix("/") },
  neg: { evaluate: (a) => -a!, wgsl: (a) => `(-${a})` },
  exp: { evaluate: Math.exp, wgsl: call("exp") },
  log: { evaluate: Math.log, wgsl: call("log") },
  log1p: { evaluate: Math.log1p, wgsl: call("log1p_T"), helper: "log1p" },
  expm1: { evaluate: Math.expm1, wgsl: call("expm1_T"), helper: "expm1" },
  sqrt: { evaluate: Math.sqrt, wgsl: call("sqrt") },
  abs: { evaluate: Math.abs, wgsl: call("abs") },
  sign: { evaluate: Math.sign, wgsl: call("sign") },
  sigmoid: {
    evaluate: (a) => a! >= 0 ? 1 / (1 + Math.exp(-a!)) : Math.exp(a!) / (1 + Math.exp(a!)),
    wgsl: call("sigmoid_T"),
    helper: "sigmoid",
  },
  tanh: { evaluate: Math.tanh, wgsl: call("tanh_T"), helper: "tanh" },
  erf: { evaluate: erf, wgsl: call("erf_T"), helper: "erf" },
  min: { evaluate: Math.min, wgsl: call("min"), sameWidth: true },
  max: { evaluate: Math.max, wgsl: call("max"), sameWidth: true },
  logAddExp: {
    evaluate: (a, b) => a === b ? a! + Math.LN2 : Math.max(a!, b!) + Math.log1p(Math.exp(-Math.abs(a! - b!))),
    wgsl: call("logAddExp_T"),
    helper: "logAddExp",
    sameWidth: true,
  },
  select: {
    evaluate: (c, a, b) => c !== 0 ? a! : b!,
    wgsl: (c, a, b) => `select(${b}, ${a}, ${c})`,
    sameWidth: true,
  },
  detach: { evaluate: (a) => a!, wgsl: (a) => a! },
  less: { evaluate: (a, b) => Number(a! < b!), wgsl: infix("<"), sameWidth: true },
  lessOrEqual: { evaluate: (a, b) => Number(a! <= b!), wgsl: infix("<="), sameWidth: true },
  equal: { evaluate: (a, b) => Number(a === b), wgsl: infix("=="), sameWidth: true },
  and: { evaluate: (a, b) => Number(a !== 0 && b !== 0), wgsl: infix("&"), sameWidth: true },
  or: { evaluate: (a, b) => Number(a !== 0 || b !== 0), wgsl: infix("|"), sameWidth: true },
  not: { evaluate: (a) => Number(a === 0), wgsl: (a) => `(!${a})` },
};

/**
 * Sources of the helpers; T is `f32` or `vec4<f32>`, SUFFIX `f32` or `vec4`.
 *
 * Both logarithm and exponential are a series where the plain form would cancel: log1p(x) = 2 artanh(x / (2 + x)), which no
 * compiler's liberties with float arithmetic can spoil, unlike Kahan's `(1 + x) - 1`.
 */
export const HELPERS: Readonly<Record<Helper, { readonly source: string; readonly needs?: Helper }>> = {
  log1p: {
    source: `fn log1p_SUFFIX(x: T) -> T {
  let s = x / (x + 2.0);
  let t = s * s;
  let near = 2.0 * s * (1.0 + t * (1.0 / 3.0 + t * (0.2 + t * (1.0 / 7.0 + t * (1.0 / 9.0)))));
  return select(log(1.0 + x), near, abs(x) < T(0.3));
}`,
  },
  expm1: {
    source: `fn expm1_SUFFIX(x: T) -> T {
  let near = x * (1.0 + x * (0.5 + x * (1.0 / 6.0 + x * (1.0 / 24.0 + x * (1.0 / 120.0 + x * (1.0 / 720.0 + x * (1.0 / 5040.0)))))));
  return select(exp(x) - 1.0, near, abs(x) < T(0.4));
}`,
  },
  // The exponent is bounded because WGSL lets a compiler assume that nothing is infinite.
  sigmoid: { source: `fn sigmoid_SUFFIX(x: T) -> T {\n  return 1.0 / (1.0 + exp(min(-x, T(88.0))));\n}` },
  // From expm1, because drivers make it from exponentials that cancel near 0 or overflow far from it.
  tanh: {
    source:
      `fn tanh_SUFFIX(x: T) -> T {\n  let e = expm1_SUFFIX(-2.0 * abs(x));\n  return -sign(x) * e / (e + 2.0);\n}`,
    needs: "expm1",
  },
  erf: { source: ERF_WGSL },
  logAddExp: {
    source: `fn logAddExp_SUFFIX(a: T, b: T) -> T {\n  return max(a, b) + log1p_SUFFIX(exp(-abs(a - b)));\n}`,
    needs: "log1p",
  },
};
