/**
 * What subsets of layers are compared by.
 *
 * @module
 */
import type { Calibration } from "./calibration.ts";
import type { SubsetValues } from "./evaluation_cache.ts";
import { choiceAccuracy } from "./questions.ts";
import type { SubsetEvaluator } from "./subset_evaluator.ts";

/** Of calibration samples the cross-entropy or KL(full || subset), lower is better; of questions the share answered rightly. */
export const DEPTH_METRICS = ["loss", "kl", "accuracy"] as const;

/** See {@linkcode DEPTH_METRICS}. */
export type DepthMetric = typeof DEPTH_METRICS[number];

/** What the numbers of a metric are, for their cache: whoever changes what is computed changes the words. */
export const MEASURED: Readonly<Record<DepthMetric, string>> = {
  loss: "mean cross-entropy",
  kl: "mean cross-entropy and KL(full || subset)",
  accuracy: "accuracy by mean log-probability of choices",
};

/** Measures a subset. */
export async function measureSubset(
  evaluator: SubsetEvaluator,
  { questions }: Calibration,
  metric: DepthMetric,
  kept: readonly number[],
): Promise<SubsetValues> {
  if (metric === "accuracy") return { accuracy: await choiceAccuracy(evaluator, questions!, kept) };
  const { loss, kl } = await evaluator.measure(kept, metric === "kl" ? "divergence" : "loss");
  const finite = (value: number) => (Number.isFinite(value) ? value : null);
  return { loss: finite(loss), ...(kl === undefined ? {} : { kl: finite(kl) }) };
}

/** What a search goes by: lower is better, infinite where there is no number. */
export function valueOf(values: SubsetValues, metric: DepthMetric): number {
  const value = values[metric] ?? null;
  if (value === null) return Infinity;
  return metric === "accuracy" ? -value : value;
}
