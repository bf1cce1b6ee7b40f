/**
 * The course of the learning rate.
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
