/**
 * The error function, erf(x) = 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x: in f64, and as WGSL in f32.
 *
 * @module
 */

/**
 * erf in f64, within 1e-15: the series without alternating signs, Abramowitz and Stegun, "Handbook of Mathematical Functions", 7.1.6,
 * where it is short, and the continued fraction of the complement, 7.1.14, beyond.
 */
export function erf(x: number): number {
  const s = Math.abs(x);
  if (s > 6) return Math.sign(x);
  if (s < 2.5) {
    let [term, sum] = [x, x];
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= 2 * x * x / (2 * n + 1);
      sum += term;
    }
    return 2 / Math.sqrt(Math.PI) * Math.exp(-x * x) * sum;
  }
  let fraction = s;
  for (let n = 60; n >= 1; n--) fraction = s + n / 2 / fraction;
  return Math.sign(x) * (1 - Math.exp(-s * s) / (Math.sqrt(Math.PI) * fraction));
}

/**
 * erf as a function of WGSL; T is `f32` or `vec4<f32>`, SUFFIX `f32` or `vec4`, as in the other helpers.
 *
 * Below 1 ten terms of Maclaurin's series (7.1.5), whose next term is below 2e-8 of the whole. Beyond, 1 - exp(-x^2) P(1 / x): P
 * interpolates exp(x^2) erfc(x) as a polynomial of 1 / x at the eight Chebyshev nodes of 1/4 ... 1, which leaves erfc within 1.2e-9;
 * beyond 4 erfc is less than half a unit in the last place of 1. With the rounding of f32, erf is within 1.5e-7 everywhere, and below 1
 * within 3e-7 of itself.
 */
export const ERF_WGSL = `fn erf_SUFFIX(x: T) -> T {
  let s = abs(x);
  let z = x * x;
  let near = x * (1.1283791671 + z * (-0.3761263890 + z * (0.1128379167 + z * (-0.02686617065 + z * (0.005223977625
    + z * (-0.0008548327023 + z * (0.0001205533298 + z * (-0.00001492565036 + z * (0.000001646211437
    - z * 0.0000001636584469)))))))));
  let t = 1.0 / max(s, T(1.0));
  let p = 0.000381532307 + t * (0.557292635 + t * (0.0535994946 + t * (-0.513899125 + t * (0.589897178
    + t * (-0.368562563 + t * (0.128479453 - t * 0.0196050299))))));
  return select(sign(x) * (1.0 - exp(-min(z, T(80.0))) * p), near, s < T(1.0));
}`;
