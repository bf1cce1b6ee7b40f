/**
 * The mixture of two distributions in log space: a log of a sum of exponentials would underflow at logits of +-60.
 *
 * @module
 */
import { constant, type Expression, log, logAddExp } from "../../src/registry/contract.ts";

/** log(share a + (1 - share) b) from log a and log b; `share` strictly between 0 and 1. */
export function logMixture(share: Expression, logA: Expression, logB: Expression): Expression {
  return logAddExp(log(share).add(logA), log(constant(1).sub(share)).add(logB));
}
