/**
 * The paired bootstrap: how far the mean difference of two models on the same items would vary, had other items been drawn. B. Efron,
 * "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979; percentile intervals, without interpolation.
 *
 * @module
 */
import { philox4x32, splitSeed } from "../../base/random.ts";

/** How it is drawn. */
export interface BootstrapOptions {
  /** Resamples. */
  readonly resamples?: number;
  /** Between 0 and 1: the share of resamples that the interval holds. */
  readonly level?: number;
  readonly seed?: number;
  /**
   * Size of each item, such as its tokens: the statistic is then sum d / sum size, where d are differences of sums. Without, it is the mean.
   */
  readonly sizes?: ArrayLike<number>;
}

/** What is found. */
export interface Bootstrap {
  /** Of a less b. */
  readonly difference: number;
  readonly low: number;
  readonly high: number;
  /** min(1, 2 min(P(mean <= 0), P(mean >= 0))) over the resamples. */
  readonly p: number;
  readonly items: number;
}

/** Resamples, unless another number is asked for. */
export const RESAMPLES = 10_000;
const LEVEL = 0.95;
const ROUNDING = 1e-12;
/** Tells these random numbers from those of other users of a seed. */
const SITE = 0x626f6f74;

/**
 * Compares two models by what each item came to; the same items in the same order.
 *
 * @returns undefined without items, or without anything in them
 */
export function pairedBootstrap(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  { resamples = RESAMPLES, level = LEVEL, seed = 0, sizes }: BootstrapOptions = {},
): Bootstrap | undefined {
  const n = a.length;
  if (n !== b.length) throw new RangeError(`${n} items against ${b.length}`);
  const differences = Float64Array.from({ length: n }, (_, i) => a[i]! - b[i]!);
  const weights = Float64Array.from({ length: n }, (_, i) => sizes?.[i] ?? 1);
  const difference = sum(differences) / sum(weights);
  if (!Number.isFinite(difference)) return undefined;
  const means = resampledMeans(differences, weights, resamples, seed);
  // Sums that are zero come out as something near it, by the order in which they are made.
  const zero = ROUNDING * differences.reduce((most, d) => Math.max(most, Math.abs(d)), 0) * n / sum(weights);
  let [atMost, atLeast] = [0, 0];
  for (const mean of means) {
    if (mean <= zero) atMost++;
    if (mean >= -zero) atLeast++;
  }
  means.sort();
  const p = (1 - level) / 2;
  return {
    difference,
    low: means[place(resamples, p)]!,
    high: means[place(resamples, 1 - p)]!,
    p: Math.min(1, 2 * Math.min(atMost, atLeast) / resamples),
    items: n,
  };
}

/** Place from 0 of the ceil(B p)-th of B sorted means, at least the first. */
function place(resamples: number, p: number): number {
  // What is whole but for rounding is meant to be whole: (1 - 0.95) / 2 of 10,000 is 250, not 251.
  return Math.min(resamples, Math.max(1, Math.ceil(resamples * p - 1e-9))) - 1;
}

function resampledMeans(
  differences: Float64Array,
  weights: Float64Array,
  resamples: number,
  seed: number,
): Float64Array {
  const n = differences.length;
  const key = splitSeed(seed);
  const means = new Float64Array(resamples);
  for (let r = 0; r < resamples; r++) {
    let [total, size] = [0, 0];
    for (let i = 0; i < n; i += 4) {
      const words = philox4x32([i >>> 2, r, 0, SITE], key);
      for (let k = 0; k < 4 && i + k < n; k++) {
        const drawn = Math.floor(words[k]! / 2 ** 32 * n);
        total += differences[drawn]!;
        size += weights[drawn]!;
      }
    }
    // A resample of empty items alone says nothing.
    means[r] = size > 0 ? total / size : 0;
  }
  return means;
}

function sum(values: Float64Array): number {
  return values.reduce((total, value) => total + value, 0);
}
