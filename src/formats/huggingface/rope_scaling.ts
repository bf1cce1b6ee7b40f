/**
 * GGUF keeps the outcome of a rotary scaling, one divisor for each frequency; config.json keeps its parameters. This finds the
 * parameters again.
 *
 * @module
 */

const llama3Factors = [2, 4, 8, 16, 32, 64];
const lowFactors = [1, 2, 4];
const highFactors = [2, 4, 8, 16, 32];

/** Divisors are stored as f32. */
const tolerance = 1e-6;

/**
 * The `rope_scaling` of a config.json that yields these divisors.
 *
 * @param factors What the frequency of pair i is divided by, [headDim / 2].
 * @returns null for no scaling, undefined when neither a linear scaling nor a llama3 scaling with usual parameters yields them.
 */
export function ropeScalingOf(
  factors: readonly number[],
  ropeTheta: number,
): Record<string, unknown> | null | undefined {
  const close = (a: number, b: number) => Math.abs(a / b - 1) < tolerance;
  if (factors.every((factor) => close(factor, 1))) return null;
  if (factors.every((factor) => close(factor, factors[0]))) {
    return { rope_type: "linear", factor: factors[0] };
  }

  for (const factor of llama3Factors) {
    for (const low of lowFactors) {
      for (const high of highFactors.filter((high) => high > low)) {
        for (let context = 16; context <= 1 << 20; context *= 2) {
          const fits = factors.every((divisor, i) => {
            const wavelength = 2 * Math.PI * ropeTheta ** (i / factors.length);
            return close(divisor, llama3Divisor(wavelength, factor, low, high, context));
          });
          if (!fits) continue;
          return {
            rope_type: "llama3",
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position_embeddings: context,
          };
        }
      }
    }
  }
  return undefined;
}

/** What llama3 scaling divides the frequency of a wavelength by. */
function llama3Divisor(
  wavelength: number,
  factor: number,
  low: number,
  high: number,
  context: number,
): number {
  if (wavelength < context / high) return 1;
  if (wavelength > context / low) return factor;
  const smooth = (context / wavelength - low) / (high - low);
  return 1 / ((1 - smooth) / factor + smooth);
}
