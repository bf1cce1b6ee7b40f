/**
 * The largest eigenvalues of a dense symmetric matrix and their vectors, in f64.
 *
 * Householder's reduction to a tridiagonal matrix, all its eigenvalues by the implicit QL algorithm, the vectors that are wanted by inverse
 * iteration with reorthogonalisation: Golub and Van Loan, "Matrix Computations", 4th edition, 8.3 and 8.4.2; Wilkinson, "The Algebraic
 * Eigenvalue Problem", 5.
 *
 * @module
 */
import { LimbeckError } from "../base/errors.ts";
import { fillRandom, norm, normalise, takeAway } from "./vectors.ts";

/** Eigenvalues, falling, and vectors of the first of them as rows. */
export interface Eigen {
  /** All n of them. */
  readonly values: Float64Array;
  /** [wanted, n]: row i is the vector of `values[i]`, orthonormal. */
  readonly vectors: Float64Array;
}

/**
 * @param matrix [n, n], symmetric; it is overwritten
 * @param wanted How many vectors, given all eigenvalues in falling order
 * @throws {LimbeckError} if it does not converge, which no finite matrix is known to cause
 */
export function largestEigen(
  matrix: Float64Array,
  n: number,
  wanted: (values: Float64Array) => number,
): Eigen {
  const reduced = tridiagonal(matrix, n);
  const values = tridiagonalValues(reduced.diagonal, reduced.beside).sort().reverse();
  const vectors = tridiagonalVectors(reduced.diagonal, reduced.beside, values, wanted(values));
  reflectBack(vectors, matrix, reduced.factors, n);
  return { values, vectors };
}

interface Tridiagonal {
  readonly diagonal: Float64Array;
  /** Entry i stands beside i and i + 1. */
  readonly beside: Float64Array;
  /** 2 / |v|^2 of each reflection, whose vector v lies in its row of the matrix, right of the diagonal. */
  readonly factors: Float64Array;
}

/**
 * Reduces the upper triangle in place. The update that a reflection asks for and the product that the next one needs go over the matrix
 * together, because its memory is what takes the time.
 */
function tridiagonal(a: Float64Array, n: number): Tridiagonal {
  const [diagonal, beside, factors] = [new Float64Array(n), new Float64Array(n), new Float64Array(n)];
  /** The last reflection v and w: what is left to do is a -= v w^T + w v^T. */
  let [v, w] = [new Float64Array(n), new Float64Array(n)];
  let [nextV, product] = [new Float64Array(n), new Float64Array(n)];
  for (let k = 0; k < n; k++) {
    update(a, v, w, k, n);
    diagonal[k] = a[k * n + k]!;
    if (k === n - 1) break;
    const row = k * n;
    let largest = 0;
    for (let j = k + 1; j < n; j++) largest = Math.max(largest, Math.abs(a[row + j]!));
    let squares = 0;
    for (let j = k + 1; j < n; j++) squares += (a[row + j]! / largest) ** 2;
    const norm = largest * Math.sqrt(squares);
    const first = a[row + k + 1]!;
    nextV.fill(0);
    product.fill(0);
    // A row that is all zeros, or only its first entry, is tridiagonal as it is.
    const rest = largest === 0 ? 0 : squares - (first / largest) ** 2;
    if (rest <= 0) {
      beside[k] = first;
      for (let j = k + 1; j < n; j++) a[row + j] = 0;
      for (let i = k + 1; i < n; i++) update(a, v, w, i, n);
      [v, nextV] = [nextV, v];
      [w, product] = [product, w];
      continue;
    }
    const alpha = first > 0 ? -norm : norm;
    beside[k] = alpha;
    nextV[k + 1] = (first - alpha) / norm;
    for (let j = k + 2; j < n; j++) nextV[j] = a[row + j]! / norm;
    // |v|^2 = 2 (1 + |first| / norm)
    const factor = 1 / (1 + Math.abs(first) / norm);
    factors[k] = factor;
    for (let j = k + 1; j < n; j++) a[row + j] = nextV[j]!;
    for (let i = k + 1; i < n; i++) updateAndMultiply(a, v, w, nextV, product, i, n);
    let along = 0;
    for (let j = k + 1; j < n; j++) along += product[j]! * nextV[j]!;
    for (let j = k + 1; j < n; j++) {
      product[j] = factor * product[j]! - factor * factor / 2 * along * nextV[j]!;
    }
    [v, nextV] = [nextV, v];
    [w, product] = [product, w];
  }
  return { diagonal, beside, factors };
}

/** Row i, right of the diagonal and on it, of a -= v w^T + w v^T. */
function update(a: Float64Array, v: Float64Array, w: Float64Array, i: number, n: number): void {
  const [vi, wi, row] = [v[i]!, w[i]!, i * n];
  for (let j = i; j < n; j++) a[row + j]! -= vi * w[j]! + wi * v[j]!;
}

/** The same, and what row i and, by symmetry, column i add to a x. */
function updateAndMultiply(
  a: Float64Array,
  v: Float64Array,
  w: Float64Array,
  x: Float64Array,
  product: Float64Array,
  i: number,
  n: number,
): void {
  const [vi, wi, xi, row] = [v[i]!, w[i]!, x[i]!, i * n];
  const onDiagonal = a[row + i]! - 2 * vi * wi;
  a[row + i] = onDiagonal;
  let sum = onDiagonal * xi;
  for (let j = i + 1; j < n; j++) {
    const entry = a[row + j]! - vi * w[j]! - wi * v[j]!;
    a[row + j] = entry;
    sum += entry * x[j]!;
    product[j]! += entry * xi;
  }
  product[i]! += sum;
}

/** All eigenvalues, in no order: implicit QL with Wilkinson's shift. */
function tridiagonalValues(diagonal: Float64Array, beside: Float64Array): Float64Array<ArrayBuffer> {
  const n = diagonal.length;
  const [d, e] = [Float64Array.from(diagonal), Float64Array.from(beside)];
  // Below the rounding of the largest entries nothing is known anyway; without a floor, matrices whose sizes vary greatly do not converge.
  const negligible = Number.EPSILON / 8 * normOf(diagonal, beside);
  const parts = (i: number) =>
    Math.abs(e[i]!) <= Math.max(negligible, Number.EPSILON * (Math.abs(d[i]!) + Math.abs(d[i + 1]!)));
  for (let l = 0; l < n; l++) {
    for (let sweep = 0;; sweep++) {
      let m = l;
      while (m < n - 1 && !parts(m)) m++;
      if (m === l) break;
      if (sweep === 60) throw new LimbeckError("the eigenvalues of a matrix do not converge");
      const half = (d[l + 1]! - d[l]!) / (2 * e[l]!);
      let g = d[m]! - d[l]! + e[l]! / (half + (half < 0 ? -1 : 1) * Math.hypot(half, 1));
      let [s, c, p] = [1, 1, 0];
      let i = m - 1;
      for (; i >= l; i--) {
        const [f, b] = [s * e[i]!, c * e[i]!];
        const r = Math.sqrt(f * f + g * g);
        e[i + 1] = r;
        if (r === 0) {
          d[i + 1]! -= p;
          e[m] = 0;
          break;
        }
        s = f / r;
        c = g / r;
        const shifted = d[i + 1]! - p;
        const t = (d[i]! - shifted) * s + 2 * c * b;
        p = s * t;
        d[i + 1] = shifted + p;
        g = c * t - b;
      }
      if (i >= l) continue;
      d[l]! -= p;
      e[l] = g;
      e[m] = 0;
    }
  }
  return d;
}

/** The largest sum of the absolute values of a row. */
function normOf(diagonal: Float64Array, beside: Float64Array): number {
  let norm = 0;
  for (let i = 0; i < diagonal.length; i++) {
    norm = Math.max(norm, Math.abs(diagonal[i]!) + Math.abs(beside[i]!) + Math.abs(beside[i - 1] ?? 0));
  }
  return norm;
}

/** Vectors of eigenvalues nearer than this share of the norm are made orthogonal by hand; inverse iteration parts the others itself. */
const NEAR = 1e-4;

/** The length that a vector must keep when its parts along those before it are taken away. */
const KEPT = 1e-3;

/** Distinguishes the beginnings of inverse iteration from other users of a seed. */
const SITE = 0x65696700;

/** Rows: vectors of the first `count` values, which fall. */
function tridiagonalVectors(
  diagonal: Float64Array,
  beside: Float64Array,
  values: Float64Array,
  count: number,
): Float64Array {
  const n = diagonal.length;
  const vectors = new Float64Array(count * n);
  const largest = normOf(diagonal, beside);
  if (largest === 0) {
    for (let k = 0; k < count; k++) vectors[k * n + k] = 1;
    return vectors;
  }
  const tolerance = 16 * Number.EPSILON * largest * n;
  let before = Infinity;
  for (let k = 0, near = 0; k < count; k++) {
    // Equal shifts would give the same vector again; what parts them must not carry them away from their values either.
    const apart = Math.min(values[k]!, before - 2 * Number.EPSILON * largest);
    const shift = values[k]! - apart < tolerance / 8 ? apart : values[k]!;
    before = shift;
    while (values[near]! - values[k]! > NEAR * largest) near++;
    const factors = factored(diagonal, beside, shift, largest);
    const x = vectors.subarray(k * n, (k + 1) * n);
    for (let start = 0;; start++) {
      if (start === 8) throw new LimbeckError("the eigenvectors of a matrix do not converge");
      fillRandom(x, k, start, SITE);
      if (!iterate(factors, x, () => residual(diagonal, beside, values[k]!, x) <= tolerance)) continue;
      takeAway(vectors, near, k, x);
      // What lay among the vectors before it would leave nothing but rounding.
      if (norm(x) > KEPT) break;
    }
    normalise(x);
    takeAway(vectors, near, k, x);
    normalise(x);
  }
  return vectors;
}

/** Solves until x is an eigenvector; false where it does not become one. */
function iterate(factors: Factors, x: Float64Array, found: () => boolean): boolean {
  for (let turn = 0; turn < 6; turn++) {
    normalise(x);
    solve(factors, x);
    normalise(x);
    // The first answer is near enough by chance where the beginning was; the second is as near as can be.
    if (turn > 0 && found()) return true;
  }
  return false;
}

/** L and U of T - shift with rows exchanged: U has three diagonals. */
interface Factors {
  readonly pivot: Float64Array;
  readonly second: Float64Array;
  readonly third: Float64Array;
  readonly below: Float64Array;
  readonly exchanged: Uint8Array;
}

function factored(diagonal: Float64Array, beside: Float64Array, shift: number, norm: number): Factors {
  const n = diagonal.length;
  const pivot = diagonal.map((d) => d - shift);
  const [second, below] = [Float64Array.from(beside), new Float64Array(n)];
  const [third, exchanged] = [new Float64Array(n), new Uint8Array(n)];
  for (let i = 0; i < n - 1; i++) {
    const under = beside[i]!;
    if (Math.abs(pivot[i]!) >= Math.abs(under)) {
      if (pivot[i] === 0) pivot[i] = Number.EPSILON * norm;
      below[i] = under / pivot[i]!;
      pivot[i + 1]! -= below[i]! * second[i]!;
    } else {
      exchanged[i] = 1;
      below[i] = pivot[i]! / under;
      pivot[i] = under;
      const [above, next] = [second[i]!, pivot[i + 1]!];
      second[i] = next;
      pivot[i + 1] = above - below[i]! * next;
      if (i < n - 2) {
        third[i] = second[i + 1]!;
        second[i + 1] = -below[i]! * third[i]!;
      }
    }
  }
  if (Math.abs(pivot[n - 1]!) < Number.EPSILON * norm) pivot[n - 1] = Number.EPSILON * norm;
  return { pivot, second, third, below, exchanged };
}

function solve({ pivot, second, third, below, exchanged }: Factors, x: Float64Array): void {
  const n = x.length;
  for (let i = 0; i < n - 1; i++) {
    if (exchanged[i]) [x[i], x[i + 1]] = [x[i + 1]!, x[i]!];
    x[i + 1]! -= below[i]! * x[i]!;
  }
  for (let i = n - 1; i >= 0; i--) {
    let right = x[i]!;
    if (i < n - 1) right -= second[i]! * x[i + 1]!;
    if (i < n - 2) right -= third[i]! * x[i + 2]!;
    x[i] = right / pivot[i]!;
  }
}

/** |(T - shift) x| */
function residual(diagonal: Float64Array, beside: Float64Array, shift: number, x: Float64Array): number {
  let squares = 0;
  for (let i = 0; i < x.length; i++) {
    let y = (diagonal[i]! - shift) * x[i]!;
    if (i > 0) y += beside[i - 1]! * x[i - 1]!;
    if (i < x.length - 1) y += beside[i]! * x[i + 1]!;
    squares += y * y;
  }
  return Math.sqrt(squares);
}

/** Turns vectors of the tridiagonal matrix into those of the dense one, four at a time, so that each reflection is read once for four. */
function reflectBack(
  vectors: Float64Array,
  reflections: Float64Array,
  factors: Float64Array,
  n: number,
): void {
  const count = vectors.length / n;
  for (let first = 0; first < count; first += 4) {
    const rows = [0, 1, 2, 3].map((i) => first + i).filter((row) => row < count);
    for (let k = n - 2; k >= 0; k--) {
      if (factors[k] === 0) continue;
      if (rows.length === 4) reflectFour(vectors, first * n, reflections, k, factors[k]!, n);
      else for (const row of rows) reflect(vectors, row * n, reflections, k, factors[k]!, n);
    }
  }
}

function reflect(x: Float64Array, at: number, v: Float64Array, k: number, factor: number, n: number): void {
  const row = k * n;
  let along = 0;
  for (let j = k + 1; j < n; j++) along += v[row + j]! * x[at + j]!;
  along *= factor;
  for (let j = k + 1; j < n; j++) x[at + j]! -= along * v[row + j]!;
}

function reflectFour(
  x: Float64Array,
  at: number,
  v: Float64Array,
  k: number,
  factor: number,
  n: number,
): void {
  const [row, x1, x2, x3] = [k * n, at + n, at + 2 * n, at + 3 * n];
  let [a0, a1, a2, a3] = [0, 0, 0, 0];
  for (let j = k + 1; j < n; j++) {
    const vj = v[row + j]!;
    a0 += vj * x[at + j]!, a1 += vj * x[x1 + j]!, a2 += vj * x[x2 + j]!, a3 += vj * x[x3 + j]!;
  }
  a0 *= factor, a1 *= factor, a2 *= factor, a3 *= factor;
  for (let j = k + 1; j < n; j++) {
    const vj = v[row + j]!;
    x[at + j]! -= a0 * vj, x[x1 + j]! -= a1 * vj, x[x2 + j]! -= a2 * vj, x[x3 + j]! -= a3 * vj;
  }
}
