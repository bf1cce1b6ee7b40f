/**
 * What a few paired numbers say: means with their spread, and nothing that a few numbers cannot say.
 *
 * @module
 */

/** Values of one measurement over seeds. */
export interface SampleSummary {
  /** Values there are. */
  n: number;
  /** Null where there is no value. */
  mean: number | null;
  /** Of the sample: divided by n - 1. Null below two values, which have no spread. */
  standardDeviation: number | null;
}

/** Differences of one measurement to another recipe's, seed by seed. */
export interface PairedSummary {
  /** Pairs there are. */
  n: number;
  /** Null where there is no pair. */
  mean: number | null;
  /** Of the mean: the differences' standard deviation over the root of n. Null below two pairs. */
  standardError: number | null;
  /** Pairs in which the value is better than the other; equal ones are not. */
  better: number;
}

/** Which values of a measurement are the better ones. */
export type Direction = "lower" | "higher";

/** Sums up the values that are there. */
export function summariseSample(values: readonly (number | null)[]): SampleSummary {
  const there = values.filter((value) => value !== null);
  const n = there.length;
  if (n === 0) return { n, mean: null, standardDeviation: null };
  const mean = there.reduce((sum, value) => sum + value, 0) / n;
  const squares = there.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { n, mean, standardDeviation: n < 2 ? null : Math.sqrt(squares / (n - 1)) };
}

/** Sums up `values[i] - others[i]`, as far as both are there. */
export function summarisePairs(
  values: readonly (number | null)[],
  others: readonly (number | null)[],
  direction: Direction,
): PairedSummary {
  const differences = values.flatMap((value, i) => {
    const other = others[i] ?? null;
    return value === null || other === null ? [] : [value - other];
  });
  const { n, mean, standardDeviation } = summariseSample(differences);
  const sign = direction === "lower" ? -1 : 1;
  return {
    n,
    mean,
    standardError: standardDeviation === null ? null : standardDeviation / Math.sqrt(n),
    better: differences.filter((d) => sign * d > 0).length,
  };
}
