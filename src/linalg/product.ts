/**
 * Products of dense row-major matrices in f64.
 *
 * @module
 */
import { BREADTH, DEPTH, TILE, tiles } from "./tiles.ts";

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
  const work = tiles();
  for (let from = 0; from < k; from += DEPTH) {
    const depth = Math.min(DEPTH, k - from);
    for (let block = 0; block < n; block += BREADTH) {
      const end = Math.min(n, block + BREADTH);
      for (let j = block; j < end; j += TILE) pack(b, work.b, (j - block) * depth, j, n, k, from, depth);
      const first = symmetric ? block : 0;
      for (let i = first; i < m; i += TILE) {
        pack(a, work.a, 0, i, m, k, from, depth);
        const last = symmetric ? Math.min(end, i + TILE) : end;
        const count = Math.ceil((last - block) / TILE);
        work.run(depth, count);
        add(c, work.sums, i, block, Math.min(end, block + TILE * count), m, n);
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

/** Adds the sums of tiles to four rows of c from row i on, in the columns from `left` to `right`. */
function add(
  c: Float64Array,
  sums: Float64Array,
  i: number,
  left: number,
  right: number,
  m: number,
  n: number,
): void {
  const rows = Math.min(TILE, m - i);
  for (let row = 0; row < rows; row++) {
    const at = (i + row) * n;
    for (let j = left; j < right; j++) {
      const [tile, column] = [(j - left) >> 2, (j - left) & 3];
      c[at + j]! += sums[TILE * (TILE * tile + row) + column]!;
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
