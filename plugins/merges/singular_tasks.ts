/**
 * Merging by task singular vectors: the leading singular vectors of all parents' changes, made orthogonal to one another.
 *
 * Gargiulo et al., "Task Singular Vectors", arXiv 2412.00081: with D_i = U_i S_i V_i^T cut to its k_i largest singular values,
 * U = [U_1 .. U_T] and V = [V_1 .. V_T] are each replaced by the nearest matrix with orthonormal columns, U = P E Q^T -> P Q^T (the
 * orthogonal Procrustes problem), and the merged change is U' diag(S_1 .. S_T) V'^T.
 *
 * @module
 */
import type { LinearAlgebra, MergeInput } from "../../src/registry/contract.ts";
import { addToBase, differences } from "./differences.ts";

/** What is taken of one parent's change. */
export interface Task {
  /** [rows, columns] */
  readonly change: Float32Array;
  /** Singular values to keep. */
  readonly rank: number;
  /** Factor of its singular values. */
  readonly weight: number;
}

/** Singular values below this share of the largest are rounding: their vectors are arbitrary and would turn the others. */
const ROUNDING = 1e-6;

/**
 * W_0 and lambda times the merged change of a matrix; of other tensors, and of matrices too small for so many parents, the mean change.
 *
 * @param tasksOf What to take of each change, where an equal share of the ranks is this many
 */
export function addSingular(
  { shape, base, parents, linalg }: Pick<
    MergeInput<unknown, unknown>,
    "shape" | "base" | "parents" | "linalg"
  >,
  lambda: number,
  tasksOf: (changes: readonly Float32Array[], share: number) => Task[],
): Float32Array {
  const changes = differences(base!, parents);
  const [rows, columns] = shape;
  const share = shape.length === 2 ? Math.floor(Math.min(rows!, columns!) / changes.length) : 0;
  if (share === 0) return addToBase(base!, changes, changes.map(() => lambda / changes.length));
  return addToBase(base!, [mergeSingular(tasksOf(changes, share), rows!, columns!, linalg)], [lambda]);
}

/** The merged change, [rows, columns]. */
function mergeSingular(
  tasks: readonly Task[],
  rows: number,
  columns: number,
  linalg: LinearAlgebra,
): Float32Array {
  const parts = tasks.map(({ change, rank }) =>
    linalg.svd(change, rows, columns, Math.min(rank, rows, columns))
  );
  const largest = Math.max(...parts.map(({ s }) => s[0] ?? 0));
  const kept = parts.map(({ s }) => s.filter((value) => value > ROUNDING * largest).length);
  const total = kept.reduce((sum, count) => sum + count, 0);
  if (total === 0) return new Float32Array(rows * columns);
  const [left, right] = [new Float32Array(rows * total), new Float32Array(columns * total)];
  const values = new Float64Array(total);
  let at = 0;
  for (const [t, { u, s, vT }] of parts.entries()) {
    const stride = s.length;
    for (let k = 0; k < kept[t]!; k++, at++) {
      values[at] = tasks[t]!.weight * s[k]!;
      for (let i = 0; i < rows; i++) left[i * total + at] = u[i * stride + k]!;
      for (let j = 0; j < columns; j++) right[j * total + at] = vT[k * columns + j]!;
    }
  }
  const [u, v] = [linalg.polar(left, rows, total), linalg.polar(right, columns, total)];
  for (let i = 0; i < rows; i++) for (let k = 0; k < total; k++) u[i * total + k]! *= values[k]!;
  return linalg.timesTransposed(u, v, [rows, total, columns]);
}
