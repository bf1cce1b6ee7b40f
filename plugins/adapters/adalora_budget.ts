/**
 * How many triplets AdaLoRA keeps at which step (Zhang et al., arXiv 2303.10512, equation 12), counted as PEFT counts.
 *
 * @module
 */

/** Steps are optimiser steps, counted from 1. */
export interface BudgetSchedule {
  /** Steps of the run. */
  readonly steps: number;
  /** Steps before anything is pruned. */
  readonly tinit: number;
  /** Steps at the end in which what is kept stays as it is. */
  readonly tfinal: number;
  /** Steps from one choice of triplets to the next. */
  readonly deltaT: number;
  /** Triplets of the network at the start and in the end. */
  readonly initial: number;
  readonly target: number;
}

/** What a step does beside training. */
export interface BudgetStep {
  /** Whether the running means of importance take in this step's gradients. */
  readonly measure: boolean;
  /** How many of the least important triplets are pruned by a new choice; 0: none is made. */
  readonly prune: number;
  /** Whether what was pruned by the last choice is pruned again. */
  readonly hold: boolean;
}

/** What step `t` does. The budget falls from `initial` to `target` by a cubic between step `tinit` and step `steps - tfinal`. */
export function budgetAt(
  t: number,
  { steps, tinit, tfinal, deltaT, initial, target }: BudgetSchedule,
): BudgetStep {
  const last = steps - tfinal;
  if (t > last) return { measure: false, prune: 0, hold: true };
  const chooses = t === last || (t > tinit && t % deltaT === 0);
  const left = 1 - (t - tinit) / (last - tinit);
  const budget = Math.trunc((initial - target) * left ** 3 + target);
  return { measure: t < last, prune: chooses ? initial - budget : 0, hold: false };
}
