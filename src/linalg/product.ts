/**
 * Products of dense row-major matrices in f64.
 *
 * @module
 */

/** Columns of the operands that are worked on at once: eight rows of as many stay in the first cache. */
const DEPTH = 256;
/** Rows of the second operand that are gone through before the next of the first: with DEPTH columns they stay in the second cache. */
const BREADTH = 64;

/**
 * a [m, k] times the transpose of b [n, k]: both are read along their rows.
 *
 * @param symmetric Whether a and b are the same, so that only half is computed
 */
export function timesTransposed(
  a: Float64Array,
  b: Float64Array,
  [m, k, n]: readonly [m: number, k: number, n: number],
  symmetric = false,
): Float64Array<ArrayBuffer> {
  const c = new Float64Array(m * n);
  for (let from = 0; from < k; from += DEPTH) {
    const to = Math.min(k, from + DEPTH);
    for (let block = 0; block < n; block += BREADTH) {
      const end = Math.min(n, block + BREADTH);
      for (let i = 0; i < m; i += 4) {
        if (symmetric && block > i + 3) continue;
        for (let j = block; j < end; j += 4) {
          if (symmetric && j > i + 3) break;
          if (i + 4 <= m && j + 4 <= end) tile(a, b, c, i, j, k, n, from, to);
          else edge(a, b, c, i, Math.min(m, i + 4), j, Math.min(end, j + 4), k, n, from, to);
        }
      }
    }
  }
  if (symmetric) { for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) c[j * n + i] = c[i * n + j]!; }
  return c;
}

/** Four rows of a against four of b: sixteen sums in registers. */
function tile(
  a: Float64Array,
  b: Float64Array,
  c: Float64Array,
  i: number,
  j: number,
  k: number,
  n: number,
  from: number,
  to: number,
): void {
  let [c00, c01, c02, c03] = [0, 0, 0, 0];
  let [c10, c11, c12, c13] = [0, 0, 0, 0];
  let [c20, c21, c22, c23] = [0, 0, 0, 0];
  let [c30, c31, c32, c33] = [0, 0, 0, 0];
  const [a0, a1, a2, a3] = [i * k, (i + 1) * k, (i + 2) * k, (i + 3) * k];
  const [b0, b1, b2, b3] = [j * k, (j + 1) * k, (j + 2) * k, (j + 3) * k];
  for (let p = from; p < to; p++) {
    const [x0, x1, x2, x3] = [a[a0 + p]!, a[a1 + p]!, a[a2 + p]!, a[a3 + p]!];
    const [y0, y1, y2, y3] = [b[b0 + p]!, b[b1 + p]!, b[b2 + p]!, b[b3 + p]!];
    c00 += x0 * y0, c01 += x0 * y1, c02 += x0 * y2, c03 += x0 * y3;
    c10 += x1 * y0, c11 += x1 * y1, c12 += x1 * y2, c13 += x1 * y3;
    c20 += x2 * y0, c21 += x2 * y1, c22 += x2 * y2, c23 += x2 * y3;
    c30 += x3 * y0, c31 += x3 * y1, c32 += x3 * y2, c33 += x3 * y3;
  }
  const [r0, r1, r2, r3] = [i * n + j, (i + 1) * n + j, (i + 2) * n + j, (i + 3) * n + j];
  c[r0]! += c00, c[r0 + 1]! += c01, c[r0 + 2]! += c02, c[r0 + 3]! += c03;
  c[r1]! += c10, c[r1 + 1]! += c11, c[r1 + 2]! += c12, c[r1 + 3]! += c13;
  c[r2]! += c20, c[r2 + 1]! += c21, c[r2 + 2]! += c22, c[r2 + 3]! += c23;
  c[r3]! += c30, c[r3 + 1]! += c31, c[r3 + 2]! += c32, c[r3 + 3]! += c33;
}

/** The same where fewer than four rows are left. */
function edge(
  a: Float64Array,
  b: Float64Array,
  c: Float64Array,
  i: number,
  iEnd: number,
  j: number,
  jEnd: number,
  k: number,
  n: number,
  from: number,
  to: number,
): void {
  for (let row = i; row < iEnd; row++) {
    for (let column = j; column < jEnd; column++) {
      let sum = 0;
      for (let p = from; p < to; p++) sum += a[row * k + p]! * b[column * k + p]!;
      c[row * n + column]! += sum;
    }
  }
}

/** The transpose of a [rows, columns], in f64. */
export function transposed(
  a: Float32Array | Float64Array,
  rows: number,
  columns: number,
): Float64Array<ArrayBuffer> {
  const result = new Float64Array(a.length);
  // In squares, because one of the two is always gone through across its rows.
  for (let top = 0; top < rows; top += 32) {
    const bottom = Math.min(rows, top + 32);
    for (let left = 0; left < columns; left += 32) {
      const right = Math.min(columns, left + 32);
      for (let i = top; i < bottom; i++) {
        for (let j = left; j < right; j++) result[j * rows + i] = a[i * columns + j]!;
      }
    }
  }
  return result;
}
