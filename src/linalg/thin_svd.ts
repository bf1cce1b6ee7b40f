/**
 * The largest singular values of a dense matrix with their vectors, in f64.
 *
 * Through the eigenvalues of A^T A, which costs a fraction of a bidiagonal reduction. Squaring hides singular values below some 1e-7 of the
 * largest one; that is less than rounding the matrix to f32 does to it, and they count as zero.
 *
 * @module
 */
import { orthonormalise } from "./orthonormal.ts";
import { timesTransposed, transposed } from "./product.ts";
import { largestEigen } from "./symmetric_eigen.ts";

/** matrix [rows, columns] ~ u diag(s) vT. The vectors lie in rows. */
export interface ThinSvd {
  /** [rank, rows] */
  readonly uT: Float64Array;
  /** [rank], falling. */
  readonly s: Float64Array;
  /** [rank, columns] */
  readonly vT: Float64Array;
  /** The sum of the squares of all entries: of all singular values, those beyond the rank included. */
  readonly squares: number;
}

/**
 * @param rank At most min(rows, columns); more is cut to that
 *
 * @example
 * ```ts
 * const { s } = thinSvd(new Float32Array([3, 0, 0, 4]), 2, 2, 1); // 4
 * ```
 */
export function thinSvd(
  matrix: Float32Array | Float64Array,
  rows: number,
  columns: number,
  rank: number,
): ThinSvd {
  const own = Float64Array.from(matrix);
  const other = transposed(matrix, rows, columns);
  let squares = 0;
  for (let i = 0; i < own.length; i++) squares += own[i]! * own[i]!;
  const tall = rows >= columns;
  const [short, long] = tall ? [columns, rows] : [rows, columns];
  const [inShort, inLong] = tall ? [other, own] : [own, other];
  const found = decompose(inShort, inLong, short, long, Math.min(rank, short));
  return tall
    ? { uT: found.long, s: found.s, vT: found.short, squares }
    : { uT: found.short, s: found.s, vT: found.long, squares };
}

/**
 * @param inShort [short, long], its rows are the matrix's shorter side
 * @param inLong [long, short], the same transposed
 */
function decompose(
  inShort: Float64Array,
  inLong: Float64Array,
  short: number,
  long: number,
  rank: number,
): { short: Float64Array; long: Float64Array; s: Float64Array } {
  const gram = timesTransposed(inShort, inShort, [short, long, short], true);
  const { vectors } = largestEigen(gram, short, (values) => {
    const floor = short * Number.EPSILON * values[0]!;
    let count = 0;
    while (count < rank && values[count]! > floor) count++;
    return count;
  });
  const count = vectors.length / short;
  const [s, onShort, onLong] = [rank, rank * short, rank * long].map((n) => new Float64Array(n));
  onShort!.set(vectors);
  onLong!.set(timesTransposed(vectors, inLong, [count, short, long]));
  // The images of the vectors stand at right angles but for rounding, which weighs most on the smallest of them. Directions that belong to
  // no singular value above the floor are made up.
  orthonormalise(onShort!, rank, short, count);
  const r = orthonormalise(onLong!, rank, long);
  for (let k = 0; k < count; k++) s![k] = r[k * rank + k]!;
  return { short: onShort!, long: onLong!, s: s! };
}

/** Singular values below this share of the largest are rounding, and their directions mean nothing. */
const ROUNDING = 1e-6;

/**
 * The nearest matrix with orthonormal columns, or rows where there are fewer: u vT, [rows, columns], which solves the orthogonal Procrustes
 * problem. Directions that the matrix does not have, it does not have either.
 */
export function polarFactor(
  matrix: Float32Array | Float64Array,
  rows: number,
  columns: number,
): Float64Array {
  const { uT, s, vT } = thinSvd(matrix, rows, columns, Math.min(rows, columns));
  const rank = s.filter((value) => value > ROUNDING * s[0]!).length;
  const [u, v] = [
    transposed(uT.subarray(0, rank * rows), rank, rows),
    transposed(vT.subarray(0, rank * columns), rank, columns),
  ];
  return timesTransposed(u, v, [rows, rank, columns]);
}
