/**
 * Intervals of 95 % around means of paired differences.
 *
 * @module
 */

/** Where a value probably lies. */
export interface Interval {
  low: number;
  high: number;
}

const LEVEL = 0.95;
/** From here on the quantile is taken from the normal distribution and two corrections, which are then exact to 1e-9. */
const MANY = 400;

/** The interval of Student's t around the mean of some values; null below two of them. */
export function meanInterval(values: readonly number[]): Interval | null {
  return ratioInterval(values, values.map(() => 1));
}

/**
 * The interval around sum(values) / sum(sizes), where pairs are drawn and not what is in them: sequences with their differences of summed
 * losses and their tokens. The standard error is that of a ratio of two means, to first order (W. G. Cochran, "Sampling Techniques", 1977,
 * 2.11), which is the clustered one of a mean over tokens (E. Miller, arXiv 2411.00640, 2.2).
 *
 * @returns null below two pairs, or without anything in them
 */
export function ratioInterval(values: readonly number[], sizes: readonly number[]): Interval | null {
  const n = values.length;
  const total = sizes.reduce((sum, size) => sum + size, 0);
  if (n < 2 || !(total > 0)) return null;
  const ratio = values.reduce((sum, value) => sum + value, 0) / total;
  const squares = values.reduce((sum, value, i) => sum + (value - ratio * sizes[i]!) ** 2, 0);
  const half = studentQuantile(n - 1) * Math.sqrt(n / (n - 1) * squares) / total;
  return { low: ratio - half, high: ratio + half };
}

/** The t that a variable of Student's distribution stays below in size with a probability of 95 %. @param freedom Degrees, from 1 */
export function studentQuantile(freedom: number): number {
  if (freedom >= MANY) {
    // Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.5.
    const z = 1.959963984540054;
    const g1 = (z ** 3 + z) / 4;
    const g2 = (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96;
    return z + g1 / freedom + g2 / freedom ** 2;
  }
  let [low, high] = [0, 13];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (studentWithin(middle, freedom) < LEVEL) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** The probability that |T| <= t. Abramowitz and Stegun, 26.7.3 and 26.7.4. */
function studentWithin(t: number, freedom: number): number {
  const angle = Math.atan(t / Math.sqrt(freedom));
  const [sine, cosine] = [Math.sin(angle), Math.cos(angle)];
  const odd = freedom % 2 === 1;
  let [sum, term] = [0, odd ? cosine : 1];
  for (let k = odd ? 1 : 0; k <= freedom - 2; k += 2) {
    sum += term;
    term *= cosine ** 2 * (k + 1) / (k + 2);
  }
  return odd ? 2 / Math.PI * (angle + sine * sum) : sine * sum;
}
