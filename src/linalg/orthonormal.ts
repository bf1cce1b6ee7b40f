/**
 * Orthonormal vectors, kept as rows, in f64.
 *
 * @module
 */
import { fillRandom, norm, normalise, takeAway } from "./vectors.ts";

/** A vector that keeps less than this share of its length lies among those before it. */
const LOST = 1e-13;
/** One that keeps more than this share is at right angles to them after one turn. */
const KEPT = 0.7;

/** Distinguishes vectors that complete a basis from other users of a seed. */
const SITE = 0x6f727400;

/**
 * Makes the vectors orthonormal in place, in order, by Gram and Schmidt's process, with a second turn where the first takes much away (Daniel,
 * Gragg, Kaufman and Stewart, Mathematics of Computation 30, 1976). Where one lies among those before it, another direction takes its place.
 *
 * @param rows [count, length], count <= length
 * @param from How many of the first are orthonormal already
 * @returns r [count, count], lower triangle: what was = r q. In the column of a direction that was made up it is 0.
 */
export function orthonormalise(rows: Float64Array, count: number, length: number, from = 0): Float64Array {
  const r = new Float64Array(count * count);
  for (let k = 0; k < from; k++) r[k * count + k] = 1;
  for (let k = from; k < count; k++) {
    const x = rows.subarray(k * length, (k + 1) * length);
    const before = norm(x);
    const coefficients = r.subarray(k * count, (k + 1) * count);
    takeAway(rows, 0, k, x, coefficients);
    let after = norm(x);
    if (after < KEPT * before) {
      takeAway(rows, 0, k, x, coefficients);
      after = norm(x);
    }
    if (after > LOST * before) {
      coefficients[k] = after;
      normalise(x);
    } else makeUp(rows, k, x);
  }
  return r;
}

/** Fills x with some direction at right angles to the first `count` rows. */
function makeUp(rows: Float64Array, count: number, x: Float64Array): void {
  // A random direction keeps about sqrt(1 - count / length) of itself; a few tries find one that keeps enough.
  for (let turn = 0;; turn++) {
    fillRandom(x, count, turn, SITE);
    normalise(x);
    takeAway(rows, 0, count, x);
    takeAway(rows, 0, count, x);
    if (norm(x) >= 1e-3 || turn === 20) break;
  }
  normalise(x);
  takeAway(rows, 0, count, x);
  normalise(x);
}
