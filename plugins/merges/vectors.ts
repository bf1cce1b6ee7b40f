/**
 * Lengths and angles of whole tensors, in f64.
 *
 * @module
 */

/** sum_i a_i b_i over `count` entries that are `stride` apart, from `from` on; over all when only vectors are given. */
export function dot(
  a: Float32Array,
  b: Float32Array,
  from = 0,
  count: number = a.length,
  stride = 1,
): number {
  let sum = 0;
  if (stride === 1) {
    for (let i = from; i < from + count; i++) sum += a[i]! * b[i]!;
  } else {
    for (let k = 0, i = from; k < count; k++, i += stride) sum += a[i]! * b[i]!;
  }
  return sum;
}

/** Products of each vector with each, [n, n] row by row. */
export function products(
  vectors: readonly Float32Array[],
  from = 0,
  count: number = vectors[0]!.length,
): number[][] {
  const all = vectors.map(() => new Array<number>(vectors.length).fill(0));
  for (let i = 0; i < vectors.length; i++) {
    for (let j = 0; j <= i; j++) {
      all[i]![j] = all[j]![i] = dot(vectors[i]!, vectors[j]!, from, count);
    }
  }
  return all;
}

/**
 * Factors of a and b in the point that lies t of the way from a to b along the great circle of their directions:
 * sin((1 - t) theta) / sin(theta) and sin(t theta) / sin(theta).
 *
 * Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985. Applied to vectors that are not of length 1, it changes lengths
 * along with directions. Where the cosine of theta is above `straight` in size, or a vector is 0, the factors are 1 - t and t.
 *
 * @param aa a a
 * @param ab a b
 * @param bb b b
 */
export function slerpFactors(
  { aa, ab, bb }: { aa: number; ab: number; bb: number },
  t: number,
  straight: number,
): [number, number] {
  const length = Math.sqrt(aa) * Math.sqrt(bb);
  if (!(length > 0)) return [1 - t, t];
  const cosine = Math.min(1, Math.max(-1, ab / length));
  const angle = Math.acos(cosine);
  const sine = Math.sin(angle);
  if (Math.abs(cosine) > straight || sine < 1e-15) return [1 - t, t];
  return [Math.sin((1 - t) * angle) / sine, Math.sin(t * angle) / sine];
}

/** Length of a row: the last dimension; all of a vector. */
export function rowLength(shape: readonly number[]): number {
  return shape.at(-1) ?? 1;
}
