/**
 * What plugins may ask of linear algebra on the host.
 *
 * @module
 */

/** Linear algebra on the host; row-major matrices. */
export interface LinearAlgebra {
  /** The `rank` largest singular values: matrix [rows, columns] ~ u [rows, rank] diag(s) vT [rank, columns]. */
  svd(matrix: Float32Array, rows: number, columns: number, rank: number): {
    u: Float32Array;
    s: Float32Array;
    vT: Float32Array;
  };
  /** matrix [rows, columns] = q [rows, k] r [k, columns] with k = min(rows, columns). */
  qr(matrix: Float32Array, rows: number, columns: number): { q: Float32Array; r: Float32Array };
  /**
   * The nearest matrix with orthonormal columns (rows, where there are fewer of them): u vT of the singular value decomposition, which solves
   * the orthogonal Procrustes problem. Directions that the matrix does not have (of a rank that is not full), the result has neither.
   */
  polar(matrix: Float32Array, rows: number, columns: number): Float32Array;
  /** a [m, k] times the transpose of b [n, k]: [m, n], summed in f64. */
  timesTransposed(
    a: Float32Array,
    b: Float32Array,
    sizes: readonly [m: number, k: number, n: number],
  ): Float32Array;
}
