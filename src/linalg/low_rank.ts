/**
 * Low-rank factors B A of a matrix: the best there are (Eckart and Young), and how much they leave out.
 *
 * @module
 */
import { orthonormalise } from "./orthonormal.ts";
import { timesTransposed, transposed } from "./product.ts";
import { thinSvd } from "./thin_svd.ts";

/** matrix [out, in] ~ b a, and what that leaves out. */
export interface LowRank {
  /** At most min(out, in). */
  readonly rank: number;
  /** [rank, in], in f64; the square roots of the singular values are shared between the two. */
  readonly a: Float64Array;
  /** [out, rank] */
  readonly b: Float64Array;
  /** The largest singular values, falling, [rank]. */
  readonly singularValues: Float64Array;
  readonly left: LeftOut;
}

/** What an approximation leaves out, in sums of squares of entries, so that it adds up over tensors. */
export interface LeftOut {
  /** Of the difference. */
  readonly squares: number;
  /** Of the whole. */
  readonly of: number;
}

/** Frobenius norm of what is left out, relative to the whole; 0 of nothing. */
export function relativeError({ squares, of }: LeftOut): number {
  return of === 0 ? 0 : Math.sqrt(squares / of);
}

/** The two together. */
export function addLeftOut(parts: Iterable<LeftOut>): LeftOut {
  let [squares, of] = [0, 0];
  for (const part of parts) [squares, of] = [squares + part.squares, of + part.of];
  return { squares, of };
}

/** The best factors of a matrix [out, in]. */
export function lowRank(
  matrix: Float32Array | Float64Array,
  out: number,
  inSize: number,
  rank: number,
): LowRank {
  const kept = Math.min(rank, out, inSize);
  const { uT, s, vT, squares } = thinSvd(matrix, out, inSize, kept);
  return { ...factors(uT, s, vT, out, inSize), left: leftOut(squares, s) };
}

/**
 * The best factors of b a, for b [out, inner] and a [inner, in], without ever forming it: both are made orthonormal times a triangle, and the
 * product of the triangles is decomposed.
 */
export function lowRankOfProduct(
  { a, b }: Pick<LowRank, "a" | "b">,
  out: number,
  inSize: number,
  rank: number,
): LowRank {
  const inner = a.length / inSize;
  // With more columns than the matrix has rows there is no triangle, and the product is the smaller thing.
  if (inner > Math.min(out, inSize)) {
    return lowRank(
      timesTransposed(b, transposed(a, inner, inSize), [out, inner, inSize]),
      out,
      inSize,
      rank,
    );
  }
  const [qb, qa] = [transposed(b, out, inner), Float64Array.from(a)];
  // b^T = rb qb, a = ra qa: b a = qb^T (rb^T ra) qa.
  const [rb, ra] = [orthonormalise(qb, inner, out), orthonormalise(qa, inner, inSize)];
  const core = timesTransposed(transposed(rb, inner, inner), transposed(ra, inner, inner), [
    inner,
    inner,
    inner,
  ]);
  const kept = Math.min(rank, inner);
  const { uT, s, vT, squares } = thinSvd(core, inner, inner, kept);
  const outer = timesTransposed(uT, transposed(qb, inner, out), [kept, inner, out]);
  const inside = timesTransposed(vT, transposed(qa, inner, inSize), [kept, inner, inSize]);
  return { ...factors(outer, s, inside, out, inSize), left: leftOut(squares, s) };
}

function factors(
  uT: Float64Array,
  s: Float64Array,
  vT: Float64Array,
  out: number,
  inSize: number,
): Omit<LowRank, "left"> {
  const rank = s.length;
  const roots = s.map(Math.sqrt);
  return {
    rank,
    a: vT.map((x, i) => x * roots[Math.floor(i / inSize)]!),
    b: transposed(uT.map((x, i) => x * roots[Math.floor(i / out)]!), rank, out),
    singularValues: s,
  };
}

/** The squares of all singular values but the first, as what is missing from the squares of all entries. */
function leftOut(squares: number, s: Float64Array): LeftOut {
  return { squares: Math.max(0, s.reduce((left, value) => left - value * value, squares)), of: squares };
}
