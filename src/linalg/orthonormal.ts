/**
 * Orthonormal vectors, kept as rows, in f64.
 *
 * @module
 */
import { philox4x32, splitSeed } from "../base/random.ts";

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
    takeAway(rows, k, x, coefficients);
    let after = norm(x);
    if (after < KEPT * before) {
      takeAway(rows, k, x, coefficients);
      after = norm(x);
    }
    if (after > LOST * before) {
      coefficients[k] = after;
      scale(x, 1 / after);
    } else makeUp(rows, k, x);
  }
  return r;
}

/** Fills x with some direction at right angles to the first `count` rows. */
function makeUp(rows: Float64Array, count: number, x: Float64Array): void {
  for (let turn = 0;; turn++) {
    for (let i = 0; i < x.length; i++) {
      x[i] = philox4x32([i, count, turn, SITE], splitSeed(0))[0] / 2 ** 31 - 1;
    }
    scale(x, 1 / norm(x));
    takeAway(rows, count, x);
    takeAway(rows, count, x);
    const left = norm(x);
    // A random direction has about sqrt(1 - count / length) left; a few tries find one that has enough.
    if (left < 1e-3 && turn < 20) continue;
    scale(x, 1 / left);
    takeAway(rows, count, x);
    scale(x, 1 / norm(x));
    return;
  }
}

function takeAway(rows: Float64Array, count: number, x: Float64Array, coefficients?: Float64Array): void {
  const { length } = x;
  for (let row = 0; row < count; row++) {
    const at = row * length;
    let along = 0;
    for (let i = 0; i < length; i++) along += rows[at + i]! * x[i]!;
    for (let i = 0; i < length; i++) x[i]! -= along * rows[at + i]!;
    if (coefficients) coefficients[row]! += along;
  }
}

function norm(x: Float64Array): number {
  let largest = 0;
  for (const value of x) largest = Math.max(largest, Math.abs(value));
  if (largest === 0) return 0;
  let squares = 0;
  for (let i = 0; i < x.length; i++) squares += (x[i]! / largest) ** 2;
  return largest * Math.sqrt(squares);
}

function scale(x: Float64Array, by: number): void {
  for (let i = 0; i < x.length; i++) x[i]! *= by;
}
