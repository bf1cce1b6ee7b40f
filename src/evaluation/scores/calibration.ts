/**
 * Calibration: whether what is said with so much confidence is right as often. Guo et al., "On calibration of modern neural networks",
 * arXiv 1706.04599: bins of equal width, and the mean gap between accuracy and confidence over them (ECE).
 *
 * @module
 */

/** What fell into one bin. */
export interface CalibrationBin {
  /** Above this; 0 itself belongs to the first bin. */
  readonly above: number;
  /** Up to this. */
  readonly upTo: number;
  readonly count: number;
  /** Mean confidence; 0 where the bin is empty. */
  readonly confidence: number;
  /** Share that is right; 0 where the bin is empty. */
  readonly accuracy: number;
}

/** How confidence and correctness fit. */
export interface Calibration {
  /** sum over bins of count / N |accuracy - confidence|. */
  readonly expectedError: number;
  /** The greatest gap of a bin with something in it. */
  readonly greatestError: number;
  /** mean (confidence - correct)². */
  readonly brier: number;
  readonly accuracy: number;
  readonly count: number;
  readonly bins: readonly CalibrationBin[];
}

/** Bins of equal width, unless another number is asked for. */
export const BINS = 15;

/** The bin of a confidence: k with k / bins < c <= (k + 1) / bins, edges being the f64 quotients; 0 is in the first. */
export function binOf(confidence: number, bins: number = BINS): number {
  // The product may round to another side of an edge than the quotient, which decides.
  let k = Math.max(0, Math.min(bins - 1, Math.ceil(confidence * bins) - 1));
  while (k > 0 && confidence <= k / bins) k--;
  while (k < bins - 1 && confidence > (k + 1) / bins) k++;
  return k;
}

/**
 * Sorts predictions into bins.
 *
 * @param confidence Probability given to each prediction, 0 to 1
 * @param correct Whether it was right: 1 or 0
 */
export function calibration(
  confidence: ArrayLike<number>,
  correct: ArrayLike<number>,
  bins: number = BINS,
): Calibration {
  const [counts, sure, right] = [new Float64Array(bins), new Float64Array(bins), new Float64Array(bins)];
  let brier = 0;
  for (let i = 0; i < confidence.length; i++) {
    const k = binOf(confidence[i]!, bins);
    counts[k]!++;
    sure[k]! += confidence[i]!;
    right[k]! += correct[i]!;
    brier += (confidence[i]! - correct[i]!) ** 2;
  }
  const n = confidence.length;
  const found = Array.from(counts, (count, k): CalibrationBin => ({
    above: k / bins,
    upTo: (k + 1) / bins,
    count,
    confidence: count > 0 ? sure[k]! / count : 0,
    accuracy: count > 0 ? right[k]! / count : 0,
  }));
  const gaps = found.map(({ accuracy, confidence }) => Math.abs(accuracy - confidence));
  return {
    expectedError: n > 0 ? gaps.reduce((sum, gap, k) => sum + counts[k]! / n * gap, 0) : 0,
    greatestError: Math.max(0, ...gaps),
    brier: n > 0 ? brier / n : 0,
    accuracy: n > 0 ? right.reduce((sum, count) => sum + count, 0) / n : 0,
    count: n,
    bins: found,
  };
}
