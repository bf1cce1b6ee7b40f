/**
 * The course of the learning rate, and of numbers of the objective.
 *
 * @module
 */

/** What the learning rate of a step depends on. Steps are counted from 0. */
export interface ScheduleOptions {
  readonly learningRate: number;
  readonly minimumLearningRate: number;
  readonly schedule: "constant" | "linear" | "cosine";
  readonly warmup: number;
  readonly steps: number;
}

/**
 * Learning rate of step `step`, counted from 0.
 *
 * Warm-up and decay follow transformers (`get_linear_schedule_with_warmup`, `get_cosine_schedule_with_warmup`): step i of the
 * warm-up has rate * i / warmup, so the very first step has rate 0; after it the rate falls to the minimum at `steps`.
 */
export function learningRateAt(step: number, options: ScheduleOptions): number {
  const { learningRate, minimumLearningRate, schedule, warmup, steps } = options;
  if (step < warmup) return learningRate * step / warmup;
  const progress = Math.min(1, (step - warmup) / Math.max(1, steps - warmup));
  const share = schedule === "constant"
    ? 1
    : schedule === "linear"
    ? 1 - progress
    : 0.5 * (1 + Math.cos(Math.PI * progress));
  return minimumLearningRate + (learningRate - minimumLearningRate) * share;
}

/** The course of a number of the objective from step to step. */
export interface Course {
  readonly from: number;
  readonly to: number;
  /** Steps done when it leaves `from`, and when it reaches `to`. */
  readonly steps: readonly [number, number];
  /** linear; cosine: slow at both ends; constant: stays at `from`, then is `to` at once. */
  readonly shape: "constant" | "linear" | "cosine";
}

/**
 * The number at a step, counted from 0: a function of the step alone, so a run that is resumed has the same.
 *
 * @param step Infinity for the end of the course
 */
export function courseAt(step: number, { from, to, steps: [first, last], shape }: Course): number {
  if (step >= last) return to;
  if (step <= first || shape === "constant") return from;
  const progress = (step - first) / (last - first);
  return from + (to - from) * (shape === "linear" ? progress : 0.5 * (1 - Math.cos(Math.PI * progress)));
}
