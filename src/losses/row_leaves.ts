/**
 * What expressions over a row of logits are made of: leaves that differ from entry to entry, and numbers that are the same for the row.
 *
 * @module
 */
import { type Expression, leaves } from "../tensor/expr/mod.ts";

/** A number computed once for a row. */
export interface Statistic {
  /** Name of the variable that stands for it. */
  readonly name: string;
  /** Over the vocabulary, or `body` at the label. */
  readonly kind: "sum" | "max" | "label";
  readonly body: Expression;
  /** The sweep that computes it: 1 needs nothing but the softmax, n what stage n - 1 gave. Look-ups need no sweep of their own. */
  readonly stage: number;
}

/** Leaves that differ from entry to entry; `g` numbers the temperature. */
export const ENTRY = {
  logQ: (g: number) => `logQ${g}`,
  logP: (g: number) => `logP${g}`,
  student: "studentLogit",
  teacher: "teacherLogit",
  isLabel: "isLabel",
} as const;

/** Leaves that are the same for a row. */
export const ROW = {
  vocabulary: "vocabulary",
  inverseTemperature: (g: number) => `inverseTemperature${g}`,
  /** A flag: whether the row is in the token mask of this number. */
  inMask: (mask: number) => `inMask${mask}`,
} as const;

const ENTRY_NAME = /^(logQ\d+|logP\d+|studentLogit|teacherLogit)$/;

/** Whether an expression is the same for the whole row. */
export function isRowLevel(expression: Expression): boolean {
  return leaves([expression], "flag").length === 0 &&
    !leaves([expression], "variable").some((name) => ENTRY_NAME.test(name));
}

/** The statistics that expressions need, directly or through others, in the order in which they were made. */
export function reachable(roots: readonly Expression[], statistics: readonly Statistic[]): Statistic[] {
  const needed = new Set<Statistic>();
  const visit = (expressions: readonly Expression[]) => {
    for (const name of leaves(expressions, "variable")) {
      const statistic = statistics.find((s) => s.name === name);
      if (!statistic || needed.has(statistic)) continue;
      needed.add(statistic);
      visit([statistic.body]);
    }
  };
  visit(roots);
  return statistics.filter((s) => needed.has(s));
}
