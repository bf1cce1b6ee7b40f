/**
 * Host arithmetic that several low-rank adapters share: products and norms of row-major matrices, summed in f64.
 *
 * @module
 */

/** a [rows, inner] b [inner, columns]. */
export function product(
  a: Float32Array,
  b: Float32Array,
  rows: number,
  inner: number,
  columns: number,
): Float32Array {
  const result = new Float32Array(rows * columns);
  const row = new Float64Array(columns);
  for (let i = 0; i < rows; i++) {
    row.fill(0);
    for (let k = 0; k < inner; k++) {
      const f = a[i * inner + k]!;
      if (f !== 0) { for (let j = 0; j < columns; j++) row[j]! += f * b[k * columns + j]!; }
    }
    result.set(row, i * columns);
  }
  return result;
}

/** Sum of the squares of each row of a matrix [rows, columns]. */
export function squaredRowNorms(matrix: Float32Array, columns: number): Float64Array {
  const sums = new Float64Array(matrix.length / columns);
  for (let i = 0; i < matrix.length; i++) sums[Math.floor(i / columns)]! += matrix[i]! ** 2;
  return sums;
}

/** Transpose of a matrix [rows, columns]. */
export function transpose(matrix: Float32Array, rows: number, columns: number): Float32Array {
  const result = new Float32Array(matrix.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) result[j * rows + i] = matrix[i * columns + j]!;
  }
  return result;
}

/** Two matrices with as many columns, one below the other. */
export function below(top: Float32Array, bottom: Float32Array): Float32Array {
  const result = new Float32Array(top.length + bottom.length);
  result.set(top);
  result.set(bottom, top.length);
  return result;
}
