/**
 * Vectors in f64, by themselves and as the rows of a matrix.
 *
 * @module
 */
import { philox4x32, splitSeed } from "../base/random.ts";

/** The Euclidean length, without overflow. */
export function norm(x: Float64Array): number {
  let largest = 0;
  for (const value of x) largest = Math.max(largest, Math.abs(value));
  if (largest === 0) return 0;
  let squares = 0;
  for (let i = 0; i < x.length; i++) squares += (x[i]! / largest) ** 2;
  return largest * Math.sqrt(squares);
}

/** Makes the length 1. */
export function normalise(x: Float64Array): void {
  const length = norm(x);
  for (let i = 0; i < x.length; i++) x[i] = x[i]! / length;
}

/**
 * Takes from x its parts along the rows from `from` to `to`, which are orthonormal.
 *
 * @param coefficients Gets added, by row, how much of each was taken
 */
export function takeAway(
  rows: Float64Array,
  from: number,
  to: number,
  x: Float64Array,
  coefficients?: Float64Array,
): void {
  const { length } = x;
  for (let row = from; row < to; row++) {
    const at = row * length;
    let along = 0;
    for (let i = 0; i < length; i++) along += rows[at + i]! * x[i]!;
    for (let i = 0; i < length; i++) x[i]! -= along * rows[at + i]!;
    if (coefficients) coefficients[row]! += along;
  }
}

/** Fills x with numbers from -1 to 1 that depend on these three alone. */
export function fillRandom(x: Float64Array, number: number, turn: number, site: number): void {
  for (let i = 0; i < x.length; i++) {
    x[i] = philox4x32([i, number, turn, site], splitSeed(0))[0] / 2 ** 31 - 1;
  }
}
