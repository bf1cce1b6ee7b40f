/** a [m, k] b [k, n] in f64. */
export function product(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  m: number,
  k: number,
  n: number,
): Float64Array {
  const result = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      for (let p = 0; p < k; p++) result[i * n + j]! += a[i * k + p]! * b[p * n + j]!;
    }
  }
  return result;
}
