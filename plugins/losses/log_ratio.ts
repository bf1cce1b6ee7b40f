/**
 * What losses over pairs of texts are made of.
 *
 * @module
 */
import type { DivergenceSymbols, Expression } from "../../src/registry/contract.ts";

/** log q(label) - log p(label): summed over a text, how much likelier the learner finds it than the target. */
export function logRatio(
  { logP, logQ, atLabel }: Pick<DivergenceSymbols, "logP" | "logQ" | "atLabel">,
): Expression {
  return atLabel(logQ).sub(atLabel(logP));
}
