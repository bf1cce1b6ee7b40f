/**
 * Sums of products as lists of addends: cancels what cancels, and finds the parts of a sum that are known beforehand.
 *
 * @module
 */
import { constant, Expression, mul } from "./expression.ts";

/** One addend: coefficient * factor * term. */
export interface Addend {
  readonly coefficient: number;
  /** What is the same for all elements; the constant 1 where there is nothing. */
  readonly factor: Expression;
  /** What differs from element to element; the constant 1 where nothing does. */
  readonly term: Expression;
}

const ONE = constant(1);

/**
 * The addends of an expression, like terms merged, those with coefficient 0 dropped.
 *
 * A factor is distributed over a sum only if it is the same for all elements: `q (a - b)` stays one term, since `q a - q b`
 * would lose the digits that the difference keeps.
 *
 * @param isUniform Whether an expression is the same for all elements
 */
export function addends(expression: Expression, isUniform: (e: Expression) => boolean): Addend[] {
  const found: Addend[] = [];
  const put = (coefficient: number, factor: Expression, term: Expression) => {
    const i = found.findIndex((a) => a.term.equals(term) && a.factor.equals(factor));
    if (i < 0) found.push({ coefficient, factor, term });
    else found[i] = { coefficient: found[i]!.coefficient + coefficient, factor, term };
  };
  const visit = (e: Expression, coefficient: number, factor: Expression): void => {
    const [a, b] = e.operands as readonly Expression[];
    switch (e.kind) {
      case "constant":
        return put(coefficient * e.value, factor, ONE);
      case "add":
        visit(a!, coefficient, factor);
        return visit(b!, coefficient, factor);
      case "sub":
        visit(a!, coefficient, factor);
        return visit(b!, -coefficient, factor);
      case "neg":
        return visit(a!, -coefficient, factor);
      case "div":
        if (b!.kind === "constant" && b!.value !== 0) return visit(a!, coefficient / b!.value, factor);
        break;
      case "mul":
        if (a!.kind === "constant") return visit(b!, coefficient * a!.value, factor);
        // A uniform factor that is itself a sum is split, so that its parts meet their like.
        for (const [uniform, rest] of [[a!, b!], [b!, a!]] as const) {
          if (!isUniform(uniform)) continue;
          if (isUniform(rest)) break;
          for (const part of addends(uniform, () => false)) {
            visit(rest, coefficient * part.coefficient, mul(factor, part.term));
          }
          return;
        }
    }
    if (isUniform(e)) put(coefficient, mul(factor, e), ONE);
    else put(coefficient, factor, e);
  };
  visit(expression, 1, ONE);
  return found.filter((a) => a.coefficient !== 0);
}

/** The sum of addends as an expression. */
export function sumOf(list: readonly Addend[]): Expression {
  let sum: Expression = constant(0);
  // Positive addends first: a sum that begins with a negation costs one operation more.
  for (const { coefficient, factor, term } of [...list].sort((a, b) => b.coefficient - a.coefficient)) {
    const part = mul(factor, term);
    sum = coefficient < 0 ? sum.sub(mul(-coefficient, part)) : sum.add(mul(coefficient, part));
  }
  return sum;
}
