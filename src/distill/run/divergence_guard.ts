/**
 * Stops a run whose loss is no number, or has become much worse than it was.
 *
 * @module
 */
import { DivergedError } from "../../base/errors.ts";
import type { Progress } from "../checkpoint/checkpoint.ts";
import type { DivergenceGuard } from "../recipe/recipe.ts";
import type { StepMetrics } from "../program/metrics/step_metrics.ts";

/** The running window of training losses. */
type LossWindow = Progress["window"];

/**
 * Takes the numbers of a step into account.
 *
 * @returns the window with them
 * @throws {DivergedError} where the run must stop
 */
export function checkDivergence(
  m: StepMetrics,
  before: LossWindow,
  { maxLossFactor, window: size }: DivergenceGuard,
): LossWindow {
  // A norm overflows before any gradient does; the optimiser's running squares then do too.
  const gradient = m.nonFinite || !Number.isFinite(m.gradientNorm);
  if (gradient || !Number.isFinite(m.loss)) {
    throw new DivergedError(
      `the ${gradient ? "gradient" : "loss"} of step ${m.step} is not a finite number`,
      {
        hint:
          "Begin a new run with a lower train.learningRate or more train.warmup; resumed, this one would take the same steps. " +
          "On a software GPU samples of many thousand tokens end like this too: there, a shorter data.contextLength helps.",
      },
    );
  }
  const window = { ...before, sum: before.sum + m.loss, count: before.count + 1 };
  if (window.count < size) return window;
  const mean = window.sum / window.count;
  if (maxLossFactor > 0 && window.lowest !== null && mean > maxLossFactor * window.lowest) {
    throw new DivergedError(
      `the mean loss of steps ${m.step - size + 1} to ${m.step} is ${mean.toFixed(4)}, ${
        (mean / window.lowest).toFixed(1)
      } times the lowest so far (train.divergence allows ${maxLossFactor})`,
      { hint: "Begin a new run with a lower train.learningRate or more train.warmup." },
    );
  }
  return { sum: 0, count: 0, lowest: Math.min(mean, window.lowest ?? Infinity) };
}
