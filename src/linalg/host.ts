/**
 * Linear algebra on the host, as plugins get it: for adapters that begin from a weight, and for merges.
 *
 * @module
 */
import { Matrix, QrDecomposition, SingularValueDecomposition } from "ml-matrix";
import { philox4x32, splitSeed } from "../base/random.ts";
import type { LinearAlgebra } from "./linear_algebra.ts";
import { timesTransposed, transposed } from "./product.ts";
import { polarFactor, thinSvd } from "./thin_svd.ts";

/** Smaller sides than this are decomposed whole; above, only the subspace that is wanted. */
const WHOLE = 256;

/** Directions of the random subspace beyond the wanted rank, and sweeps that turn it towards the largest singular values. */
const OVERSAMPLING = 10;
const SWEEPS = 4;

/**
 * In f64, with results rounded to f32. Deterministic. Of large matrices only the subspace of the largest singular values is looked for, which is
 * near enough to begin training from.
 */
export const hostLinearAlgebra: LinearAlgebra = {
  svd(matrix, rows, columns, rank) {
    const wanted = Math.min(rank, rows, columns);
    const whole = Math.min(rows, columns) <= Math.max(WHOLE, 2 * (wanted + OVERSAMPLING));
    const full = toMatrix(matrix, rows, columns);
    const basis = whole ? undefined : dominantSubspace(full, wanted + OVERSAMPLING);
    const svd = new SingularValueDecomposition(basis ? basis.transpose().mmul(full) : full, {
      autoTranspose: true,
    });
    const left = basis ? basis.mmul(svd.leftSingularVectors) : svd.leftSingularVectors;
    const [u, s, vT] = [rows * wanted, wanted, wanted * columns].map((n) => new Float32Array(n));
    for (let k = 0; k < wanted; k++) {
      s![k] = svd.diagonal[k]!;
      for (let i = 0; i < rows; i++) u![i * wanted + k] = left.get(i, k);
      for (let j = 0; j < columns; j++) vT![k * columns + j] = svd.rightSingularVectors.get(j, k);
    }
    return { u: u!, s: s!, vT: vT! };
  },
  qr(matrix, rows, columns) {
    const { orthogonalMatrix, upperTriangularMatrix } = new QrDecomposition(toMatrix(matrix, rows, columns));
    const k = Math.min(rows, columns);
    const [q, r] = [new Float32Array(rows * k), new Float32Array(k * columns)];
    for (let i = 0; i < rows; i++) for (let j = 0; j < k; j++) q[i * k + j] = orthogonalMatrix.get(i, j);
    for (let i = 0; i < k; i++) {
      for (let j = 0; j < columns; j++) r[i * columns + j] = upperTriangularMatrix.get(i, j);
    }
    return { q, r };
  },
  polar: (matrix, rows, columns) => Float32Array.from(polarFactor(matrix, rows, columns)),
  timesTransposed: (a, b, sizes) =>
    Float32Array.from(timesTransposed(Float64Array.from(a), Float64Array.from(b), sizes)),
};

/** The same with singular values and vectors that are exact, however close they lie, for merges. */
export const exactLinearAlgebra: LinearAlgebra = {
  ...hostLinearAlgebra,
  svd(matrix, rows, columns, rank) {
    const wanted = Math.min(rank, rows, columns);
    const { uT, s, vT } = thinSvd(matrix, rows, columns, wanted);
    return {
      u: Float32Array.from(transposed(uT, wanted, rows)),
      s: Float32Array.from(s),
      vT: Float32Array.from(vT),
    };
  },
};

/** An orthonormal basis of about the `size` largest left singular vectors: Halko, Martinsson and Tropp, arXiv 0909.4061, 4.4. */
function dominantSubspace(matrix: Matrix, size: number): Matrix {
  const transposed = matrix.transpose();
  const orthonormal = (m: Matrix) => new QrDecomposition(m).orthogonalMatrix;
  const random = new Matrix(matrix.columns, size);
  for (let i = 0; i < matrix.columns; i++) {
    for (let k = 0; k < size; k++) {
      const word = philox4x32([i, k, 0, SITE], splitSeed(0))[0];
      random.set(i, k, word / 2 ** 31 - 1);
    }
  }
  let basis = orthonormal(matrix.mmul(random));
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    basis = orthonormal(matrix.mmul(orthonormal(transposed.mmul(basis))));
  }
  return basis;
}

/** Distinguishes the random subspace from other users of a seed. */
const SITE = 0x73766400;

function toMatrix(data: Float32Array, rows: number, columns: number): Matrix {
  const matrix = new Matrix(rows, columns);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) matrix.set(i, j, data[i * columns + j]!);
  return matrix;
}

/** Remembers singular values by the very array they were asked for. */
export function memoised(linalg: LinearAlgebra): LinearAlgebra {
  const known = new Map<Float32Array, Map<number, ReturnType<LinearAlgebra["svd"]>>>();
  return {
    svd(matrix, rows, columns, rank) {
      let byRank = known.get(matrix);
      if (!byRank) known.set(matrix, byRank = new Map());
      let found = byRank.get(rank);
      if (!found) byRank.set(rank, found = linalg.svd(matrix, rows, columns, rank));
      return found;
    },
    qr: linalg.qr,
    polar: linalg.polar,
    timesTransposed: linalg.timesTransposed,
  };
}
