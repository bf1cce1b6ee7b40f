/**
 * Products of dense row-major matrices in f64.
 *
 * @module
 */

/** Columns of the operands that are worked on at once. */
const DEPTH = 256;
/** Rows of b that are worked on at once: packed with DEPTH columns they stay in the second cache. */
const BREADTH = 64;
/** Rows of a and of b whose sixteen products are summed in registers. */
const TILE = 4;

/**
 * a [m, k] times the transpose of b [n, k]: both are read along their rows, and packed first, because rows whose distance is a power of two
 * would drive one another from the cache.
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
  const [packedA, packedB] = [new Float64Array(TILE * DEPTH), new Float64Array(BREADTH * DEPTH)];
  for (let from = 0; from < k; from += DEPTH) {
    const depth = Math.min(DEPTH, k - from);
    for (let block = 0; block < n; block += BREADTH) {
      const end = Math.min(n, block + BREADTH);
      for (let j = block; j < end; j += TILE) pack(b, packedB, (j - block) * depth, j, n, k, from, depth);
      const first = symmetric ? block : 0;
      for (let i = first; i < m; i += TILE) {
        pack(a, packedA, 0, i, m, k, from, depth);
        const last = symmetric ? Math.min(end, i + TILE) : end;
        for (let j = block; j < last; j += TILE) {
          addTile(packedA, packedB, (j - block) * depth, depth, c, i, j, m, n);
        }
      }
    }
  }
  if (symmetric) { for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) c[j * n + i] = c[i * n + j]!; }
  return c;
}

/** Four rows beside each other, [depth, 4]; zeros where there are fewer. */
function pack(
  x: Float64Array,
  packed: Float64Array,
  at: number,
  row: number,
  rows: number,
  k: number,
  from: number,
  depth: number,
): void {
  for (let t = 0; t < TILE; t++) {
    const begin = (row + t) * k + from;
    const there = row + t < rows;
    for (let p = 0; p < depth; p++) packed[at + p * TILE + t] = there ? x[begin + p]! : 0;
  }
}

/** Adds the products of four packed rows of a and four of b to c. */
function addTile(
  a: Float64Array,
  b: Float64Array,
  bAt: number,
  depth: number,
  c: Float64Array,
  i: number,
  j: number,
  m: number,
  n: number,
): void {
  let c00 = 0, c01 = 0, c02 = 0, c03 = 0;
  let c10 = 0, c11 = 0, c12 = 0, c13 = 0;
  let c20 = 0, c21 = 0, c22 = 0, c23 = 0;
  let c30 = 0, c31 = 0, c32 = 0, c33 = 0;
  for (let p = 0, q = bAt; p < TILE * depth; p += TILE, q += TILE) {
    const x0 = a[p]!, x1 = a[p + 1]!, x2 = a[p + 2]!, x3 = a[p + 3]!;
    const y0 = b[q]!, y1 = b[q + 1]!, y2 = b[q + 2]!, y3 = b[q + 3]!;
    c00 += x0 * y0, c01 += x0 * y1, c02 += x0 * y2, c03 += x0 * y3;
    c10 += x1 * y0, c11 += x1 * y1, c12 += x1 * y2, c13 += x1 * y3;
    c20 += x2 * y0, c21 += x2 * y1, c22 += x2 * y2, c23 += x2 * y3;
    c30 += x3 * y0, c31 += x3 * y1, c32 += x3 * y2, c33 += x3 * y3;
  }
  addRow(c, i, j, m, n, c00, c01, c02, c03);
  addRow(c, i + 1, j, m, n, c10, c11, c12, c13);
  addRow(c, i + 2, j, m, n, c20, c21, c22, c23);
  addRow(c, i + 3, j, m, n, c30, c31, c32, c33);
}

function addRow(
  c: Float64Array,
  i: number,
  j: number,
  m: number,
  n: number,
  c0: number,
  c1: number,
  c2: number,
  c3: number,
): void {
  if (i >= m) return;
  const at = i * n + j;
  c[at]! += c0;
  if (j + 1 < n) c[at + 1]! += c1;
  if (j + 2 < n) c[at + 2]! += c2;
  if (j + 3 < n) c[at + 3]! += c3;
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
