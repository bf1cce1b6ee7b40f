/**
 * Symbolic derivatives and substitution of scalar expressions.
 *
 * @module
 */
import {
  abs,
  add,
  Condition,
  constant,
  detach,
  div,
  erf,
  exp,
  expm1,
  Expression,
  ExpressionError,
  type ExpressionNode,
  flag,
  log,
  log1p,
  logAddExp,
  max,
  min,
  mul,
  neg,
  select,
  sigmoid,
  sign,
  sqrt,
  sub,
  tanh,
} from "./expression.ts";

/**
 * d expression / d variable.
 *
 * `detach(x)` has derivative 0; `min`, `max` and `abs` give the derivative of the branch that is taken (the first operand
 * where both are equal, 0 for `abs` at 0).
 *
 * @param name Name of a variable or step scalar
 */
export function derivative(expression: Expression, name: string): Expression {
  const known = new Map<ExpressionNode, Expression>();
  const visit = (node: Expression): Expression => {
    let result = known.get(node);
    if (!result) {
      result = rule(node);
      known.set(node, result);
    }
    return result;
  };
  const rule = (node: Expression): Expression => {
    const [a, b, c] = node.operands as readonly Expression[];
    switch (node.kind) {
      case "constant":
      case "detach":
      case "sign":
        return constant(0);
      case "variable":
      case "scalar":
        return constant(node.name === name ? 1 : 0);
      case "add":
        return add(visit(a!), visit(b!));
      case "sub":
        return sub(visit(a!), visit(b!));
      case "mul":
        return add(mul(visit(a!), b!), mul(a!, visit(b!)));
      case "div":
        return sub(div(visit(a!), b!), mul(div(node, b!), visit(b!)));
      case "neg":
        return neg(visit(a!));
      case "exp":
        return mul(node, visit(a!));
      case "log":
        return div(visit(a!), a!);
      case "log1p":
        return div(visit(a!), add(1, a!));
      case "expm1":
        return mul(exp(a!), visit(a!));
      case "sqrt":
        return div(visit(a!), mul(2, node));
      case "abs":
        return mul(sign(a!), visit(a!));
      case "sigmoid":
        return mul(mul(node, sigmoid(neg(a!))), visit(a!));
      case "tanh":
        return mul(sub(1, mul(node, node)), visit(a!));
      case "erf":
        return mul(mul(2 / Math.sqrt(Math.PI), exp(neg(mul(a!, a!)))), visit(a!));
      case "min":
        return select(a!.lessOrEqual(b!), visit(a!), visit(b!));
      case "max":
        return select(a!.greaterOrEqual(b!), visit(a!), visit(b!));
      case "logAddExp":
        return add(mul(visit(a!), sigmoid(sub(a!, b!))), mul(visit(b!), sigmoid(sub(b!, a!))));
      case "select":
        return select(node.operands[0] as Condition, visit(b!), visit(c!));
      default:
        throw new ExpressionError(`"${node.kind}" is not a number and has no derivative`);
    }
  };
  return visit(expression);
}

/** What to put in the place of a leaf, by its name. */
export interface Substitutions {
  readonly numbers?: ReadonlyMap<string, Expression>;
  readonly flags?: ReadonlyMap<string, Condition | boolean>;
}

/** The expression with leaves replaced, simplified again on the way. */
export function substitute(expression: Expression, { numbers, flags }: Substitutions): Expression {
  const known = new Map<ExpressionNode, ExpressionNode | boolean>();
  const visit = (node: ExpressionNode): ExpressionNode | boolean => {
    let result = known.get(node);
    if (result === undefined) {
      result = rebuild(node);
      known.set(node, result);
    }
    return result;
  };
  const rebuild = (node: ExpressionNode): ExpressionNode | boolean => {
    if (node.kind === "flag") return flags?.get(node.name) ?? node;
    if (node.operands.length === 0) return numbers?.get(node.name) ?? node;
    const operands = node.operands.map(visit);
    if (node.kind === "select" && typeof operands[0] === "boolean") return operands[operands[0] ? 1 : 2]!;
    if (node instanceof Condition) return condition(node, operands);
    return operands.every((x, i) => x === node.operands[i])
      ? node
      : build(node.kind, operands as ExpressionNode[]);
  };
  return visit(expression) as Expression;
}

function condition(node: Condition, operands: (ExpressionNode | boolean)[]): Condition | boolean {
  const [a, b] = operands;
  switch (node.kind) {
    case "not":
      return typeof a === "boolean" ? !a : (a as Condition).not();
    case "and":
      if (typeof a === "boolean") return a && b as Condition | boolean;
      return typeof b === "boolean" ? b && a as Condition : (a as Condition).and(b as Condition);
    case "or":
      if (typeof a === "boolean") return a || b as Condition | boolean;
      return typeof b === "boolean" ? b || a as Condition : (a as Condition).or(b as Condition);
    default:
      return node.operands.length === 0
        ? flag(node.name)
        : new Condition(node.kind, operands as ExpressionNode[]);
  }
}

const CONSTRUCTORS: Readonly<Record<string, (...operands: Expression[]) => Expression>> = {
  add,
  sub,
  mul,
  div,
  neg,
  exp,
  log,
  log1p,
  expm1,
  sqrt,
  abs,
  sign,
  sigmoid,
  tanh,
  erf,
  min,
  max,
  logAddExp,
  detach,
};

function build(kind: string, operands: readonly ExpressionNode[]): Expression {
  if (kind === "select") {
    const [c, a, b] = operands as readonly [Condition, Expression, Expression];
    return select(c, a, b);
  }
  return CONSTRUCTORS[kind]!(...operands as Expression[]);
}

/** Names of the leaves of one kind that the expressions contain, in order of first appearance. */
export function leaves(
  expressions: Iterable<ExpressionNode>,
  kind: "variable" | "scalar" | "flag",
): string[] {
  const names = new Set<string>();
  const seen = new Set<ExpressionNode>();
  const visit = (node: ExpressionNode) => {
    if (seen.has(node)) return;
    seen.add(node);
    if (node.kind === kind) names.add(node.name);
    node.operands.forEach(visit);
  };
  for (const expression of expressions) visit(expression);
  return [...names];
}
