import { Matrix, SingularValueDecomposition } from "ml-matrix";
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { exactLinearAlgebra } from "../../src/linalg/host.ts";
import { orthonormalise } from "../../src/linalg/orthonormal.ts";
import { timesTransposed, transposed } from "../../src/linalg/product.ts";
import { largestEigen } from "../../src/linalg/symmetric_eigen.ts";
import { polarFactor, thinSvd } from "../../src/linalg/thin_svd.ts";
import { assertWithin, randomArray } from "../tensor/harness.ts";

/** a [m, k] b [k, n], one entry after another. */
function product(a: ArrayLike<number>, b: ArrayLike<number>, m: number, k: number, n: number): Float64Array {
  const result = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let p = 0; p < k; p++) sum += a[i * k + p]! * b[p * n + j]!;
      result[i * n + j] = sum;
    }
  }
  return result;
}

const eye = (n: number) => Float64Array.from({ length: n * n }, (_, i) => Number(i % (n + 1) === 0));

/** rows of x at right angles, each of length 1 */
function assertOrthonormal(x: Float64Array, count: number, length: number, tolerance = 1e-10): void {
  assertWithin(timesTransposed(x, x, [count, length, count]), eye(count), tolerance, "x x^T");
}

/** A matrix [rows, columns] with these singular values, in f64. */
function withValues(values: readonly number[], rows: number, columns: number): Float64Array {
  const [u, v] = [rows, columns].map((length, seed) => {
    const vectors = Float64Array.from(randomArray(values.length * length, 5 + seed));
    orthonormalise(vectors, values.length, length);
    return vectors;
  });
  const scaled = u!.map((x, i) => x * values[Math.floor(i / rows)]!);
  return timesTransposed(transposed(scaled, values.length, rows), transposed(v!, values.length, columns), [
    rows,
    values.length,
    columns,
  ]);
}

/** u diag(s) vT of what was found. */
function put({ uT, s, vT }: ReturnType<typeof thinSvd>, rows: number, columns: number): Float64Array {
  const scaled = uT.map((x, i) => x * s[Math.floor(i / rows)]!);
  return product(transposed(scaled, s.length, rows), vT, rows, s.length, columns);
}

Deno.test("timesTransposed() and transposed() are what they say at odd sizes", () => {
  for (const [m, k, n] of [[1, 1, 1], [3, 5, 2], [4, 8, 4], [65, 257, 67], [70, 300, 9]] as const) {
    const [a, b] = [Float64Array.from(randomArray(m * k, 1)), Float64Array.from(randomArray(n * k, 2))];
    const expected = product(a, transposed(b, n, k), m, k, n);
    assertWithin(timesTransposed(a, b, [m, k, n]), expected, 1e-12, `[${m}, ${k}, ${n}]`);
    const own = product(a, transposed(a, m, k), m, k, m);
    assertWithin(timesTransposed(a, a, [m, k, m], true), own, 1e-12, `symmetric [${m}, ${k}]`);
  }
});

for (const [rows, columns] of [[1, 1], [1, 6], [6, 1], [5, 3], [33, 40], [64, 64], [131, 97]] as const) {
  Deno.test(`thinSvd() of [${rows}, ${columns}] is that of a library, and puts the matrix together again`, () => {
    const matrix = randomArray(rows * columns, rows + columns);
    const size = Math.min(rows, columns);
    const reference = new SingularValueDecomposition(Matrix.from1DArray(rows, columns, [...matrix]), {
      autoTranspose: true,
    }).diagonal;
    const found = thinSvd(matrix, rows, columns, size);
    assertWithin(found.s, reference.slice(0, size), 1e-11, "singular values");
    assertWithin(put(found, rows, columns), matrix, 1e-11, "u diag(s) vT");
    assertOrthonormal(found.uT, size, rows);
    assertOrthonormal(found.vT, size, columns);
    const some = thinSvd(matrix, rows, columns, Math.ceil(size / 3));
    assertWithin(some.s, reference.slice(0, Math.ceil(size / 3)), 1e-11, "the largest");
    const left = some.squares - some.s.reduce((sum, s) => sum + s * s, 0);
    const beyond = reference.slice(Math.ceil(size / 3), size).reduce((sum, s) => sum + s * s, 0);
    assert(Math.abs(left - beyond) < 1e-10, `${left} is left, ${beyond} expected`);
  });
}

const SPECTRA: Readonly<Record<string, readonly number[]>> = {
  "all equal": Array(20).fill(2),
  "in two clusters": [...Array(9).fill(3), ...Array(8).fill(1)],
  "close to one another": Array.from({ length: 20 }, (_, i) => 1 + i * 1e-9).reverse(),
  "of rank 1": [5],
  "of rank 6": [5, 4, 3, 2, 1, 0.5],
  "falling over five decades": Array.from({ length: 20 }, (_, i) => 10 ** (-i / 4)),
};

for (const [name, values] of Object.entries(SPECTRA)) {
  Deno.test(`thinSvd() is exact for singular values ${name}`, () => {
    const [rows, columns] = [29, 23];
    const matrix = withValues(values, rows, columns);
    const found = thinSvd(matrix, rows, columns, columns);
    assertWithin(found.s, [...values, ...Array(columns - values.length).fill(0)], 1e-9, "singular values");
    assertWithin(put(found, rows, columns), matrix, 3e-7 * values[0]!, "u diag(s) vT");
    assertOrthonormal(found.uT, columns, rows);
    assertOrthonormal(found.vT, columns, columns);
  });
}

Deno.test("thinSvd() of nothing but zeros has no singular values, and vectors all the same", () => {
  const found = thinSvd(new Float32Array(12), 4, 3, 2);
  assertEquals([...found.s], [0, 0]);
  assertOrthonormal(found.uT, 2, 4);
  assertOrthonormal(found.vT, 2, 3);
});

Deno.test("largestEigen() finds all of matrices that are hard on it", () => {
  const n = 200;
  const random = Float64Array.from(randomArray(n * n, 3));
  const symmetric = random.map((_, i) => random[Math.max(i, (i % n) * n + Math.floor(i / n))]!);
  const graded = (by: number) => symmetric.map((x, i) => x * Math.exp(by * (Math.floor(i / n) + i % n) / n));
  const blocks = symmetric.map((x, i) =>
    Math.floor(Math.floor(i / n) / 16) === Math.floor(i % n / 16) ? x : 0
  );
  for (
    const [name, matrix] of Object.entries({
      symmetric,
      blocks,
      ones: new Float64Array(n * n).fill(1),
      identity: eye(n),
      zeros: new Float64Array(n * n),
      "graded down": graded(-20),
      "graded up": graded(20),
    })
  ) {
    const { values, vectors } = largestEigen(matrix.slice(), n, () => n);
    const largest = Math.max(1e-300, ...values.map(Math.abs));
    const turned = timesTransposed(vectors, matrix, [n, n, n]);
    const expected = vectors.map((x, i) => x * values[Math.floor(i / n)]!);
    assertWithin(turned.map((x) => x / largest), expected.map((x) => x / largest), 1e-13, name);
    assertOrthonormal(vectors, n, n, 1e-11);
  }
});

Deno.test("orthonormalise() gives q and r, and makes up directions where vectors depend on one another", () => {
  const [count, length] = [5, 9];
  const rows = Float64Array.from(randomArray(count * length, 8));
  for (let i = 0; i < length; i++) rows[3 * length + i] = rows[i]! + 2 * rows[length + i]!;
  const q = rows.slice();
  const r = orthonormalise(q, count, length);
  assertOrthonormal(q, count, length, 1e-12);
  assertWithin(product(r, q, count, count, length), rows, 1e-12, "r q");
  assert(Math.abs(r[3 * count + 3]!) < 1e-12);
});

Deno.test("polarFactor() is the nearest orthonormal matrix, of either shape", () => {
  for (const [rows, columns] of [[12, 5], [5, 12], [7, 7]] as const) {
    const matrix = randomArray(rows * columns, 9);
    const factor = polarFactor(matrix, rows, columns);
    const size = Math.min(rows, columns);
    assertOrthonormal(
      rows < columns ? factor : transposed(factor, rows, columns),
      size,
      Math.max(rows, columns),
    );
    // matrix = factor H with H symmetric and without negative eigenvalues: here the inner product with it is the sum of all singular values.
    const along = factor.reduce((sum, x, i) => sum + x * matrix[i]!, 0);
    const sum = thinSvd(matrix, rows, columns, size).s.reduce((a, b) => a + b, 0);
    assert(Math.abs(along - sum) < 1e-10, `${along} along the factor, ${sum} expected`);
  }
});

Deno.test("polarFactor() adds no direction that the matrix does not have", () => {
  const [rows, columns] = [9, 4];
  const matrix = withValues([3, 2], rows, columns);
  const factor = polarFactor(matrix, rows, columns);
  const { s } = thinSvd(factor, rows, columns, columns);
  assertWithin(s, [1, 1, 0, 0], 1e-7, "its singular values");
  assertEquals([...polarFactor(new Float32Array(6), 3, 2)], [0, 0, 0, 0, 0, 0]);
});

Deno.test("exactLinearAlgebra finds what is large beyond the random subspace of the other", () => {
  const [rows, columns, rank] = [280, 270, 6];
  // A spectrum so flat that a few sweeps of a random subspace do not part it.
  const values = Array.from({ length: columns }, (_, i) => 1 - i / columns / 8);
  const matrix = Float32Array.from(withValues(values, rows, columns));
  const { s, u, vT } = exactLinearAlgebra.svd(matrix, rows, columns, rank);
  assertWithin(s, values.slice(0, rank), 1e-6, "singular values");
  assertEquals([u.length, vT.length], [rows * rank, rank * columns]);
});
