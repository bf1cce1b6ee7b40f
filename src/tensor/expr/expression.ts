/**
 * Scalar expressions: immutable trees of f32 arithmetic from which derivatives, WGSL and f64 JavaScript are made.
 *
 * Activations, fused elementwise chains and divergences are written once as such a tree. Constructors simplify as they go
 * (`0 * x`, `x * 1`, constants), so a derivative stays about as small as one written by hand.
 *
 * @example
 * ```ts
 * import { exp, variable } from "./expression.ts";
 *
 * const [logP, logQ] = [variable("logP"), variable("logQ")];
 * const reverseKl = exp(logQ).mul(logQ.sub(logP));
 * ```
 *
 * @module
 */
import { LimbeckError } from "../../base/errors.ts";
import { type Operation, OPERATIONS } from "./operations.ts";

/** An expression that cannot be built, printed or evaluated. */
export class ExpressionError extends LimbeckError {
  override readonly code: string = "expression";
}

/** What a node is: a leaf or an operation of {@linkcode OPERATIONS}. */
export type NodeKind = "constant" | "variable" | "scalar" | "flag" | Operation;

/** Any node of a tree; see {@linkcode Expression} and {@linkcode Condition}. */
export abstract class ExpressionNode {
  readonly kind: NodeKind;
  readonly operands: readonly ExpressionNode[];
  /** The number of a constant. */
  readonly value: number;
  /** The name of a variable, step scalar or flag. */
  readonly name: string;
  readonly #hash: number;

  constructor(kind: NodeKind, operands: readonly ExpressionNode[], value = 0, name = "") {
    this.kind = kind;
    this.operands = operands;
    this.value = value;
    this.name = name;
    let hash = operands.length + value;
    for (const text of [kind, name]) {
      for (let i = 0; i < text.length; i++) hash = Math.imul(hash, 31) + text.charCodeAt(i) | 0;
    }
    for (const operand of operands) hash = Math.imul(hash, 16777619) ^ operand.#hash;
    this.#hash = hash;
  }

  /** Whether both trees are the same, node by node. */
  equals(other: ExpressionNode): boolean {
    if (this === other) return true;
    return this.#hash === other.#hash && this.kind === other.kind && Object.is(this.value, other.value) &&
      this.name === other.name && this.operands.length === other.operands.length &&
      this.operands.every((operand, i) => operand.equals(other.operands[i]!));
  }

  /** The tree as prefix text; the same trees give the same text. */
  toString(): string {
    if (this.kind === "constant") return String(this.value);
    if (this.operands.length === 0) return this.name;
    return `${this.kind}(${this.operands.join(", ")})`;
  }
}

/** A number, or an expression of numbers. */
export type Operand = Expression | number;

/** An expression that is a number. Methods return new expressions; nothing is ever changed in place. */
export class Expression extends ExpressionNode {
  add(other: Operand): Expression {
    return add(this, other);
  }
  sub(other: Operand): Expression {
    return sub(this, other);
  }
  mul(other: Operand): Expression {
    return mul(this, other);
  }
  div(other: Operand): Expression {
    return div(this, other);
  }
  neg(): Expression {
    return neg(this);
  }
  exp(): Expression {
    return exp(this);
  }
  log(): Expression {
    return log(this);
  }
  square(): Expression {
    return mul(this, this);
  }
  abs(): Expression {
    return abs(this);
  }
  sqrt(): Expression {
    return sqrt(this);
  }
  /** This value, seen as a constant by differentiation. */
  detach(): Expression {
    return detach(this);
  }
  lessThan(other: Operand): Condition {
    return compare("less", this, other);
  }
  lessOrEqual(other: Operand): Condition {
    return compare("lessOrEqual", this, other);
  }
  greaterThan(other: Operand): Condition {
    return compare("less", other, this);
  }
  greaterOrEqual(other: Operand): Condition {
    return compare("lessOrEqual", other, this);
  }
  equalTo(other: Operand): Condition {
    return compare("equal", this, other);
  }
}

/** An expression that is true or false; see {@linkcode select}. */
export class Condition extends ExpressionNode {
  and(other: Condition): Condition {
    return new Condition("and", [this, other]);
  }
  or(other: Condition): Condition {
    return new Condition("or", [this, other]);
  }
  not(): Condition {
    return this.kind === "not" ? this.operands[0] as Condition : new Condition("not", [this]);
  }
  /** 1 where it holds, else 0. */
  toNumber(): Expression {
    return select(this, 1, 0);
  }
}

/** A fixed number. */
export function constant(value: number): Expression {
  if (Number.isNaN(value)) throw new ExpressionError("an expression cannot contain the constant NaN");
  return new Expression("constant", [], value === 0 ? 0 : value);
}

/** A value that differs from element to element. */
export function variable(name: string): Expression {
  return new Expression("variable", [], 0, name);
}

/** A number the host may change at every step: a schedule, a learning rate. The same for all elements of a launch. */
export function stepScalar(name: string): Expression {
  return new Expression("scalar", [], 0, name);
}

/** A condition that differs from element to element. */
export function flag(name: string): Condition {
  return new Condition("flag", [], 0, name);
}

function lift(x: Operand): Expression {
  return typeof x === "number" ? constant(x) : x;
}

function isConstant(x: ExpressionNode, value?: number): boolean {
  return x.kind === "constant" && (value === undefined || x.value === value);
}

/** The operation on these operands, folded where all are constants and the result is a number. */
function apply(kind: Operation, ...operands: Expression[]): Expression {
  if (operands.every((x) => isConstant(x))) {
    const value = OPERATIONS[kind].evaluate(...operands.map((x) => x.value));
    if (!Number.isNaN(value)) return constant(value);
  }
  return new Expression(kind, operands);
}

/** a + b */
export function add(a: Operand, b: Operand): Expression {
  const [x, y] = [lift(a), lift(b)];
  if (isConstant(x, 0)) return y;
  if (isConstant(y, 0)) return x;
  if (y.kind === "neg") return sub(x, y.operands[0] as Expression);
  if (x.kind === "neg") return sub(y, x.operands[0] as Expression);
  return apply("add", x, y);
}

/** a - b */
export function sub(a: Operand, b: Operand): Expression {
  const [x, y] = [lift(a), lift(b)];
  if (isConstant(y, 0)) return x;
  if (isConstant(x, 0)) return neg(y);
  if (x.equals(y)) return constant(0);
  if (y.kind === "neg") return add(x, y.operands[0] as Expression);
  return apply("sub", x, y);
}

/** a b; zero times anything is zero, even where the other factor could be infinite */
export function mul(a: Operand, b: Operand): Expression {
  let [x, y] = [lift(a), lift(b)];
  if (isConstant(y) && !isConstant(x)) [x, y] = [y, x];
  if (isConstant(x, 0)) return x;
  if (isConstant(x, 1)) return y;
  if (isConstant(x, -1)) return neg(y);
  if (x.kind === "neg") return neg(mul(x.operands[0] as Expression, y));
  if (y.kind === "neg") return neg(mul(x, y.operands[0] as Expression));
  if (isConstant(x) && y.kind === "mul" && isConstant(y.operands[0]!)) {
    return mul(x.value * y.operands[0]!.value, y.operands[1] as Expression);
  }
  return apply("mul", x, y);
}

/** a / b */
export function div(a: Operand, b: Operand): Expression {
  const [x, y] = [lift(a), lift(b)];
  if (isConstant(y, 1)) return x;
  if (isConstant(x, 0) && !isConstant(y, 0)) return x;
  if (x.kind === "neg") return neg(div(x.operands[0] as Expression, y));
  return apply("div", x, y);
}

/** -a */
export function neg(a: Operand): Expression {
  const x = lift(a);
  if (x.kind === "neg") return x.operands[0] as Expression;
  if (x.kind === "sub") return sub(x.operands[1] as Expression, x.operands[0] as Expression);
  return apply("neg", x);
}

/** e^a */
export function exp(a: Operand): Expression {
  const x = lift(a);
  return x.kind === "log" ? x.operands[0] as Expression : apply("exp", x);
}

/** Natural logarithm. */
export function log(a: Operand): Expression {
  const x = lift(a);
  return x.kind === "exp" ? x.operands[0] as Expression : apply("log", x);
}

/** log(1 + a), exact for small a */
export function log1p(a: Operand): Expression {
  return apply("log1p", lift(a));
}

/** e^a - 1, exact for small a */
export function expm1(a: Operand): Expression {
  return apply("expm1", lift(a));
}

/** Square root. */
export function sqrt(a: Operand): Expression {
  return apply("sqrt", lift(a));
}

/** |a| */
export function abs(a: Operand): Expression {
  return apply("abs", lift(a));
}

/** -1, 0 or 1 */
export function sign(a: Operand): Expression {
  return apply("sign", lift(a));
}

/** 1 / (1 + e^-a) */
export function sigmoid(a: Operand): Expression {
  return apply("sigmoid", lift(a));
}

/** Hyperbolic tangent. */
export function tanh(a: Operand): Expression {
  return apply("tanh", lift(a));
}

/** The error function, 2 / sqrt(pi) times the integral of e^(-t^2) from 0 to a */
export function erf(a: Operand): Expression {
  return apply("erf", lift(a));
}

/** The smaller one. */
export function min(a: Operand, b: Operand): Expression {
  const [x, y] = [lift(a), lift(b)];
  return x.equals(y) ? x : apply("min", x, y);
}

/** The larger one. */
export function max(a: Operand, b: Operand): Expression {
  const [x, y] = [lift(a), lift(b)];
  return x.equals(y) ? x : apply("max", x, y);
}

/** log(e^a + e^b) without overflow: the logarithm of a mixture whose parts are given as logarithms */
export function logAddExp(a: Operand, b: Operand): Expression {
  const [x, y] = [lift(a), lift(b)];
  if (isConstant(x, -Infinity)) return y;
  if (isConstant(y, -Infinity)) return x;
  return apply("logAddExp", x, y);
}

/** `whenTrue` where the condition holds, else `whenFalse`. What is not selected may be infinite or NaN. */
export function select(condition: Condition, whenTrue: Operand, whenFalse: Operand): Expression {
  const [x, y] = [lift(whenTrue), lift(whenFalse)];
  return x.equals(y) ? x : new Expression("select", [condition, x, y]);
}

/** `a`, seen as a constant by differentiation. */
export function detach(a: Operand): Expression {
  const x = lift(a);
  return x.kind === "detach" || x.operands.length === 0 && x.kind !== "variable"
    ? x
    : new Expression("detach", [x]);
}

function compare(kind: "less" | "lessOrEqual" | "equal", a: Operand, b: Operand): Condition {
  return new Condition(kind, [lift(a), lift(b)]);
}
