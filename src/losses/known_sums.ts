/**
 * What is known of sums over the vocabulary before any is computed: sum q = sum p = 1, and one entry is the label's.
 *
 * @module
 */
import {
  addends,
  compile,
  constant,
  type Expression,
  leaves,
  mul,
  substitute,
  sumOf,
  variable,
} from "../tensor/expr/mod.ts";
import { ENTRY, isRowLevel } from "./row_leaves.ts";

/**
 * The sum over the row where it is known beforehand, from sum q = sum p = 1 and one label a row; else undefined.
 *
 * All or nothing: with only a part replaced, the rest would no longer vanish where p = q.
 */
export function knownSum(body: Expression, group: number, entryCount: Expression): Expression | undefined {
  const [q, p] = [variable(ENTRY.logQ(group)).exp(), variable(ENTRY.logP(group)).exp()];
  let total: Expression = constant(0);
  for (const { coefficient, factor, term } of addends(body, isRowLevel)) {
    let sum: Expression;
    if (term.equals(q) || term.equals(p)) sum = constant(1);
    else if (isAtLabel(term) && isRowLevel(term.operands[1] as Expression)) {
      sum = term.operands[1] as Expression;
    } else if (isRowLevel(term)) sum = mul(term, entryCount);
    else return undefined;
    total = total.add(mul(mul(coefficient, factor), sum));
  }
  return collect(total);
}

/** Whether an expression is the constant 0. */
export function isZero(e: Expression): boolean {
  return e.kind === "constant" && e.value === 0;
}

/** Whether a term is `select(isLabel, x, 0)`. */
export function isAtLabel(term: Expression): boolean {
  return term.kind === "select" && term.operands[0]!.kind === "flag" &&
    isZero(term.operands[2] as Expression);
}

/** The expression with like terms merged. */
export function collect(e: Expression): Expression {
  return sumOf(addends(e, isRowLevel));
}

/**
 * The factor c of the generator c (q - p), whose sum over the vocabulary is 0, that makes u vanish where p = q.
 *
 * It exists where u = kappa q at p = q, for one kappa; then c = -kappa. With it every addend of a divergence's sum is of
 * second order in q - p, so rounding errors of p and q no longer show. A kappa that depends on the row is not used: it may be
 * large, and then the generator would bring more rounding than it takes away.
 */
export function generatorOf(u: Expression, group: number): Expression {
  const at = (logarithm: Expression, isLabel: boolean) =>
    substitute(u, {
      numbers: new Map([[ENTRY.logQ(group), logarithm], [ENTRY.logP(group), logarithm]]),
      flags: new Map([[ENTRY.isLabel, isLabel]]),
    });
  const kappa = at(constant(0), false);
  if (isZero(kappa) || leaves([kappa], "variable").length + leaves([kappa], "flag").length > 0) {
    return constant(0);
  }
  const l = variable("l");
  const misfit = [at(l, false), at(l, true)].map((e) => e.sub(mul(kappa, l.exp())));
  const names = [...new Set([...leaves(misfit, "variable"), ...leaves(misfit, "scalar"), "l"])];
  const test = compile(misfit, names);
  for (let trial = 1; trial <= 8; trial++) {
    const inputs = names.map((name, i) => name === "l" ? -trial / 2 : 0.05 + (0.37 * trial + 0.61 * i) % 0.9);
    // A NaN is a misfit too.
    if (!test(inputs).every((x) => Math.abs(x) < 1e-9)) return constant(0);
  }
  return kappa.neg().detach();
}
