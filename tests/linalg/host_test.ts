import { hostLinearAlgebra, memoised } from "../../src/linalg/host.ts";
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { assertWithin, randomArray } from "../tensor/harness.ts";

/** a [rows, inner] b [inner, columns] in f64. */
function product(a: ArrayLike<number>, b: ArrayLike<number>, rows: number, inner: number, columns: number) {
  const result = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let k = 0; k < inner; k++) {
      for (let j = 0; j < columns; j++) {
        result[i * columns + j]! += a[i * inner + k]! * b[k * columns + j]!;
      }
    }
  }
  return result;
}

function transposed(a: ArrayLike<number>, rows: number, columns: number): Float64Array {
  return Float64Array.from(
    { length: rows * columns },
    (_, k) => a[(k % rows) * columns + Math.floor(k / rows)]!,
  );
}

/** U diag(s) V^T with orthonormal columns of U and V and singular values 1, 1/2, 1/3, ... */
function known(rows: number, columns: number) {
  const size = Math.min(rows, columns);
  const u = hostLinearAlgebra.qr(randomArray(rows * size, 1), rows, size).q;
  const v = hostLinearAlgebra.qr(randomArray(columns * size, 2), columns, size).q;
  const scaled = Float64Array.from(u, (value, i) => value / (i % size + 1));
  return Float32Array.from(product(scaled, transposed(v, columns, size), rows, size, columns));
}

const eye = (n: number) => Array.from({ length: n * n }, (_, i) => Number(i % (n + 1) === 0));

for (const [rows, columns, rank] of [[7, 5, 3], [5, 9, 5], [300, 270, 4], [262, 310, 8]] as const) {
  Deno.test(`svd() finds the largest singular values and vectors of [${rows}, ${columns}]`, () => {
    const matrix = known(rows, columns);
    const { u, s, vT } = hostLinearAlgebra.svd(matrix, rows, columns, rank);
    assertWithin(s, Array.from(s, (_, k) => 1 / (k + 1)), 2e-5, "singular values");
    assertWithin(product(transposed(u, rows, rank), u, rank, rows, rank), eye(rank), 1e-6, "U^T U");
    assertWithin(product(vT, transposed(vT, rank, columns), rank, columns, rank), eye(rank), 1e-6, "V^T V");
    const mv = product(matrix, transposed(vT, rank, columns), rows, columns, rank);
    assertWithin(mv, Array.from(u, (value, i) => value * s[i % rank]!), 2e-3, "M V = U S");
    const again = hostLinearAlgebra.svd(matrix, rows, columns, rank);
    assertEquals(again.u, u);
  });
}

Deno.test("qr() gives orthonormal columns and a triangle", () => {
  const matrix = randomArray(9 * 4, 3);
  const { q, r } = hostLinearAlgebra.qr(matrix, 9, 4);
  assertWithin(product(transposed(q, 9, 4), q, 4, 9, 4), eye(4), 1e-6);
  assertWithin(product(q, r, 9, 4, 4), matrix, 1e-6);
  assert(r.every((v, i) => Math.floor(i / 4) <= i % 4 || v === 0));
});

Deno.test("timesTransposed() is the product, rounded once", () => {
  const [m, k, n] = [13, 300, 7];
  const [a, b] = [randomArray(m * k, 4), randomArray(n * k, 5)];
  const found = hostLinearAlgebra.timesTransposed(a, b, [m, k, n]);
  assertWithin(found, product(a, transposed(b, n, k), m, k, n), 1e-6);
  assertEquals(found.length, m * n);
});

Deno.test("memoised() decomposes a matrix once for each rank", () => {
  const linalg = memoised(hostLinearAlgebra);
  const matrix = randomArray(20, 4);
  assert(linalg.svd(matrix, 5, 4, 2) === linalg.svd(matrix, 5, 4, 2));
  assert(linalg.svd(matrix, 5, 4, 2) !== linalg.svd(matrix, 5, 4, 3));
  assert(linalg.svd(matrix, 5, 4, 2) !== linalg.svd(matrix.slice(), 5, 4, 2));
});
