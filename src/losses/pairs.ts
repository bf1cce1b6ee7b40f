/**
 * Losses over pairs of texts: a function of the sums of a row loss over two texts, which is ordinary graph on top of the rows.
 *
 * @module
 */
import { derivative, type Expression, variable } from "../tensor/expr/mod.ts";
import type { Divergence } from "./contract.ts";

/** Names of the variables of a pair's expression. */
export const PAIR = {
  chosen: "chosen",
  rejected: "rejected",
  chosenMean: "chosenMean",
  rejectedMean: "rejectedMean",
} as const;

/** The loss of a pair over the variables of {@linkcode PAIR}. */
export function pairExpression(
  { pairs }: Pick<Divergence, "pairs">,
  options: Readonly<Record<string, unknown>>,
): Expression {
  return pairs!({
    chosen: variable(PAIR.chosen),
    rejected: variable(PAIR.rejected),
    chosenMean: variable(PAIR.chosenMean).detach(),
    rejectedMean: variable(PAIR.rejectedMean).detach(),
    options: { ...options },
  });
}

/** The loss of a pair and its derivatives with respect to the two sums. */
export function pairGradients(
  loss: Pick<Divergence, "pairs">,
  options: Readonly<Record<string, unknown>>,
): { readonly value: Expression; readonly chosen: Expression; readonly rejected: Expression } {
  const value = pairExpression(loss, options);
  return {
    value,
    chosen: derivative(value, PAIR.chosen),
    rejected: derivative(value, PAIR.rejected),
  };
}
