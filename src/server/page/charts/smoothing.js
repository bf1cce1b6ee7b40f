/** Smoothing of curves. */

/**
 * The exponential mean of values at steps: what lies `over` steps back counts 1/e of the newest, about. Dividing by the sum of the weights
 * takes the pull towards zero at the beginning away (Kingma and Ba, "Adam", arXiv:1412.6980, section 3). Steps may be missing between points; the
 * mean does not depend on that. Where there is no value there is no mean either.
 *
 * @param {number[]} steps ascending
 * @param {(number | null | undefined)[]} values
 * @param {number} over steps, from 1, which changes nothing
 */
export function exponentialMean(steps, values, over) {
  const decay = 1 - 1 / over;
  let [sum, weights, last] = [0, 0, undefined];
  return values.map((value, i) => {
    if (value === null || value === undefined) return value;
    const kept = last === undefined ? 0 : decay ** (steps[i] - last);
    [sum, weights, last] = [kept * sum + value, kept * weights + 1, steps[i]];
    return sum / weights;
  });
}
