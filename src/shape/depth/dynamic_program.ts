/**
 * The dynamic programme over removed layers of AmoebaLLM (arXiv 2411.10606, `main.py`): with d[n][m] the best value found with m layers
 * removed among the n last removable ones,
 *
 *     A = the value of plan[n-1][m-1] and layer R - n, evaluated as a whole subset;   B = d[n-1][m];
 *     d[n][m] = A where A < B, else B.
 *
 * It takes O(R M) evaluations. It is greedy, not exact: values of removed layers do not add up, so the best plan need not contain the
 * best smaller plan.
 *
 * @module
 */
import { type SubsetMetric, without } from "./subsets.ts";

/** One evaluation, in the order in which they were made. */
export interface Decision {
  readonly n: number;
  readonly m: number;
  /** Removed layers of the candidate, rising. */
  readonly removed: readonly number[];
  readonly value: number;
  /** What it had to be below: d[n-1][m], infinite where there was no plan yet. */
  readonly against: number;
  readonly keep: "A" | "B";
}

/** The tables of the programme. */
export interface DepthTables {
  /** d[n][m], [R + 1][M + 1]; infinite where no plan was found. */
  readonly values: readonly (readonly number[])[];
  /** Removed layers, rising; undefined where the value is infinite. */
  readonly plans: readonly (readonly (readonly number[] | undefined)[])[];
  readonly decisions: readonly Decision[];
}

/** How many layers may go. */
export interface DepthLimits {
  readonly layers: number;
  /** Layers at the end that always stay. */
  readonly keepLast: number;
  /** Most layers removed, M; at least one layer stays. */
  readonly mostRemoved: number;
}

/** Evaluations that {@linkcode depthProgram} makes, that of the full model included. */
export function depthProgramEvaluations({ layers, keepLast, mostRemoved }: DepthLimits): number {
  let sum = 1;
  for (let n = 1; n <= layers - keepLast; n++) sum += Math.min(n, mostRemoved);
  return sum;
}

/** Fills the tables. */
export async function depthProgram(
  { layers, keepLast, mostRemoved }: DepthLimits,
  metric: SubsetMetric,
): Promise<DepthTables> {
  const removable = layers - keepLast;
  const full = await metric(without(layers, []));
  const table = <T>(first: T, other: T) =>
    Array.from(
      { length: removable + 1 },
      () => Array.from({ length: mostRemoved + 1 }, (_, m) => (m === 0 ? first : other)),
    );
  const values = table(full, Infinity);
  const plans = table<readonly number[] | undefined>([], undefined);
  const decisions: Decision[] = [];
  for (let n = 1; n <= removable; n++) {
    for (let m = 1; m <= Math.min(n, mostRemoved); m++) {
      const against = values[n - 1]![m]!;
      [values[n]![m], plans[n]![m]] = [against, plans[n - 1]![m]];
      const smaller = plans[n - 1]![m - 1];
      // Where every smaller plan gave no number, there is nothing to build on.
      if (!smaller) continue;
      // Layers are visited from the last to the first, so the new one stands before all others.
      const removed = [removable - n, ...smaller];
      const value = await metric(without(layers, removed));
      const keep = value < against ? "A" : "B";
      if (keep === "A") [values[n]![m], plans[n]![m]] = [value, removed];
      decisions.push({ n, m, removed, value, against, keep });
    }
  }
  return { values, plans, decisions };
}
