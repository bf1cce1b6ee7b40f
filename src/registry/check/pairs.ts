/**
 * What losses over pairs of texts must do beside what their rows do.
 *
 * @module
 */
import type { Divergence } from "../../losses/contract.ts";
import { PAIR, pairGradients } from "../../losses/pairs.ts";
import { compile } from "../../tensor/expr/mod.ts";
import { CheckFailure, type Checklist } from "./checklist.ts";

/** Sums of two texts and their means: near each other, far apart, and as far as sums of thousands of tokens get. */
const POINTS = [[0.3, -0.2, 0.1, 0.4], [-3, 5, -1, 2], [40, -60, 7, -9], [-2000, 3000, 5, 5], [
  800,
  -900,
  1,
  1,
]];

/** Checks what a loss makes of the sums of two texts. */
export async function checkPairs(
  loss: Divergence,
  options: Readonly<Record<string, unknown>>,
  list: Checklist,
): Promise<void> {
  await list.step("pairs() against finite differences, f64", () => {
    const { value, chosen, rejected } = pairGradients(loss, options);
    const at = compile([value, chosen, rejected], Object.values(PAIR));
    const evaluate = (point: readonly number[]) => [...at(Float64Array.from(point))];
    let worst = 0;
    for (const point of POINTS) {
      const found = evaluate(point);
      if (!found.every(Number.isFinite)) {
        throw new CheckFailure(`at sums of ${point[0]} and ${point[1]} it gives ${found.join(", ")}`, {
          hint: "Write it so that nothing overflows: log(1 + exp(x)) is logAddExp(0, x).",
        });
      }
      for (const which of [0, 1]) {
        const moved = (by: number) => evaluate(point.map((v, i) => i === which ? v + by : v))[0]!;
        const difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        worst = Math.max(worst, Math.abs(found[1 + which]! - difference) / Math.max(1, Math.abs(difference)));
      }
    }
    if (worst < 1e-5) return `off by at most ${worst.toExponential(0)}`;
    throw new CheckFailure(`its derivatives are off by ${worst.toPrecision(2)}`, {
      hint: "detach() keeps a derivative back, and so does a value that jumps.",
    });
  }, "pairs() must return one expression of chosen, rejected, chosenMean, rejectedMean and plain options.");
}
