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
 * @returns null for no scaling, undefined when neither a linear scaling nor a llama3 scaling yields them that can be told from them.
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

  const wavelengths = factors.map((_, i) => 2 * Math.PI * ropeTheta ** (i / factors.length));
  for (const candidate of candidates(factors, wavelengths)) {
    if (!factors.every((divisor, i) => close(divisor, llama3Divisor(wavelengths[i]!, candidate)))) continue;
    const { factor, low, high, context } = candidate;
    return {
      rope_type: "llama3",
      factor,
      low_freq_factor: low,
      high_freq_factor: high,
      original_max_position_embeddings: context,
    };
  }
  return undefined;
}

interface Llama3Scaling {
  readonly factor: number;
  readonly low: number;
  readonly high: number;
  readonly context: number;
}

function* candidates(factors: readonly number[], wavelengths: readonly number[]): Generator<Llama3Scaling> {
  for (const factor of llama3Factors) {
    for (const low of lowFactors) {
      for (const high of highFactors.filter((high) => high > low)) {
        for (let context = 16; context <= 1 << 20; context *= 2) yield { factor, low, high, context };
      }
    }
  }
  yield* solved(factors, wavelengths);
}

/**
 * Parameters that are not the usual ones, where some frequencies are divided by the whole factor and two or more by a part of it. How much
 * of a frequency is kept is a line over 1 / wavelength: its slope is context / (high - low), and low / (high - low) is below zero where it
 * begins. Only the ratios of the three count.
 */
function* solved(factors: readonly number[], wavelengths: readonly number[]): Generator<Llama3Scaling> {
  const factor = tidy(Math.max(...factors));
  const kept = factors.map((divisor) => (1 / divisor - 1 / factor) / (1 - 1 / factor));
  const blended = [...kept.keys()].filter((i) => kept[i]! > 1e-4 && kept[i]! < 1 - 1e-4);
  if (blended.length < 2) return;
  const [first, last] = [blended[0]!, blended.at(-1)!];
  const slope = (kept[first]! - kept[last]!) / (1 / wavelengths[first]! - 1 / wavelengths[last]!);
  const below = slope / wavelengths[first]! - kept[first]!;
  for (const low of lowFactors) {
    yield { factor, low, high: tidy(low + low / below), context: Math.round(low * slope / below) };
  }
}

/** A number without what rounding to f32 has left on it. */
function tidy(value: number): number {
  const short = Math.round(value * 1000) / 1000;
  return Math.abs(short / value - 1) < 1e-4 ? short : value;
}

/** What llama3 scaling divides the frequency of a wavelength by. */
function llama3Divisor(wavelength: number, { factor, low, high, context }: Llama3Scaling): number {
  if (wavelength < context / high) return 1;
  if (wavelength > context / low) return factor;
  const smooth = (context / wavelength - low) / (high - low);
  return 1 / ((1 - smooth) / factor + smooth);
}
