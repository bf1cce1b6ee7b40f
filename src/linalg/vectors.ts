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
  if (from >= to) return;
  let along = dot(rows, from * length, x);
  for (let row = from; row < to; row++) {
    if (coefficients) coefficients[row]! += along;
    along = row + 1 < to ? takeAndMultiply(rows, row * length, x, along) : take(rows, row * length, x, along);
  }
}

/** Partial sums hide the time that an addition takes. */
function dot(rows: Float64Array, at: number, x: Float64Array): number {
  const { length } = x;
  const whole = length - length % 4;
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  for (let i = 0, r = at; i < whole; i += 4, r += 4) {
    s0 += rows[r]! * x[i]!;
    s1 += rows[r + 1]! * x[i + 1]!;
    s2 += rows[r + 2]! * x[i + 2]!;
    s3 += rows[r + 3]! * x[i + 3]!;
  }
  for (let i = whole; i < length; i++) s0 += rows[at + i]! * x[i]!;
  return (s0 + s1) + (s2 + s3);
}

function take(rows: Float64Array, at: number, x: Float64Array, along: number): number {
  for (let i = 0; i < x.length; i++) x[i]! -= along * rows[at + i]!;
  return 0;
}

/** Takes a row away and gives the product of what is left with the next row, in one go over x. */
function takeAndMultiply(rows: Float64Array, at: number, x: Float64Array, along: number): number {
  const { length } = x;
  const whole = length - length % 4;
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  for (let i = 0, r = at, next = at + length; i < whole; i += 4, r += 4, next += 4) {
    const x0 = x[i]! - along * rows[r]!;
    const x1 = x[i + 1]! - along * rows[r + 1]!;
    const x2 = x[i + 2]! - along * rows[r + 2]!;
    const x3 = x[i + 3]! - along * rows[r + 3]!;
    x[i] = x0, x[i + 1] = x1, x[i + 2] = x2, x[i + 3] = x3;
    s0 += rows[next]! * x0;
    s1 += rows[next + 1]! * x1;
    s2 += rows[next + 2]! * x2;
    s3 += rows[next + 3]! * x3;
  }
  for (let i = whole; i < length; i++) {
    x[i]! -= along * rows[at + i]!;
    s0 += rows[at + length + i]! * x[i]!;
  }
  return (s0 + s1) + (s2 + s3);
}

/** Fills x with numbers from -1 to 1 that depend on these three alone. */
export function fillRandom(x: Float64Array, number: number, turn: number, site: number): void {
  for (let i = 0; i < x.length; i++) {
    x[i] = philox4x32([i, number, turn, site], splitSeed(0))[0] / 2 ** 31 - 1;
  }
}
