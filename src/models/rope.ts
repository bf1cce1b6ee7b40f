/**
 * Frequencies and angles of the rotary position embedding (Su et al., arXiv 2104.09864) and their scaling for longer contexts, computed in
 * f64 by the formulas of transformers' `modeling_rope_utils.py`.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";

/** How a model's frequencies were stretched after pre-training. */
type RopeScaling =
  | { type: "default" }
  | { type: "linear"; factor: number }
  | { type: "llama3"; factor: number; lowFactor: number; highFactor: number; originalContext: number };

interface RopeSettings {
  theta: number | undefined;
  /** undefined when the file says nothing of scaling. */
  scaling: RopeScaling | undefined;
}

/**
 * Reads the rotary settings of either generation and works out the frequencies.
 *
 * @returns The base, `inverseFrequencies` [headDim / 2] in radians per position, and what cosines and sines are multiplied by.
 * @param defaultTheta The base where neither generation names one, as transformers has it for the family
 * @throws {InputError} when the two generations disagree, or for a scaling not known here.
 */
export function parseRope(
  config: Readonly<Record<string, unknown>>,
  headDim: number,
  defaultTheta: number,
  where: string,
): { ropeTheta: number; inverseFrequencies: Float64Array; attentionScaling: number } {
  for (const owner of [config, record(config.rope_parameters)]) {
    const partial = owner?.partial_rotary_factor ?? 1;
    if (partial !== 1) {
      throw new InputError(`partial_rotary_factor is ${JSON.stringify(partial)}; only 1 is supported`, {
        where,
      });
    }
  }
  const older = readOlder(config, where);
  const newer = readNewer(config, where);
  const theta = agree("the rope base", older.theta, newer.theta, where) ?? defaultTheta;
  const scaling = agree("rope scaling", older.scaling, newer.scaling, where) ?? { type: "default" };
  const frequencies = new Float64Array(headDim / 2);
  for (let i = 0; i < frequencies.length; i++) frequencies[i] = scaled(theta ** (-2 * i / headDim), scaling);
  divideByFactors(frequencies, config.rope_frequency_factors, where);
  return { ropeTheta: theta, inverseFrequencies: frequencies, attentionScaling: 1 };
}

/** Where the rotary table lies among a model's weights; see {@linkcode rotaryTable}. */
export const ROTARY_TABLE = "rotary_table";

/**
 * Cosines and sines of the rotary angles, computed in f64: f32 [positions, headDim], each row the headDim/2 cosines, then the
 * sines. Angles are position times inverse frequency; pairs are i and i + headDim/2, as in Hugging Face.
 */
export function rotaryTable(
  { headDim, inverseFrequencies, attentionScaling }: {
    readonly headDim: number;
    readonly inverseFrequencies: Float64Array;
    readonly attentionScaling: number;
  },
  positions: number,
): Float32Array<ArrayBuffer> {
  const half = headDim / 2;
  const table = new Float32Array(positions * headDim);
  for (let p = 0; p < positions; p++) {
    for (let i = 0; i < half; i++) {
      const angle = p * inverseFrequencies[i]!;
      table[p * headDim + i] = Math.cos(angle) * attentionScaling;
      table[p * headDim + half + i] = Math.sin(angle) * attentionScaling;
    }
  }
  return table;
}

function scaled(frequency: number, scaling: RopeScaling): number {
  if (scaling.type === "default") return frequency;
  if (scaling.type === "linear") return frequency / scaling.factor;
  // Llama 3.1: long wavelengths are stretched, short ones kept, those between blended.
  const { factor, lowFactor, highFactor, originalContext } = scaling;
  const wavelength = 2 * Math.PI / frequency;
  if (wavelength > originalContext / lowFactor) return frequency / factor;
  if (wavelength < originalContext / highFactor) return frequency;
  const smooth = (originalContext / wavelength - lowFactor) / (highFactor - lowFactor);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

/** GGUF stores the outcome of a scaling as one divisor per frequency. */
function divideByFactors(frequencies: Float64Array, factors: unknown, where: string): void {
  if (factors == null) return;
  if (!Array.isArray(factors) || factors.length !== frequencies.length) {
    throw new InputError(`rope_frequency_factors is not a list of ${frequencies.length} numbers`, { where });
  }
  for (const [i, factor] of factors.entries()) {
    frequencies[i] /= positive(factor, `rope_frequency_factors[${i}]`, where);
  }
}

/** transformers 4: `rope_theta` and `rope_scaling` beside each other. */
function readOlder(config: Readonly<Record<string, unknown>>, where: string): RopeSettings {
  const theta = config.rope_theta == null ? undefined : positive(config.rope_theta, "rope_theta", where);
  if (config.rope_scaling === undefined) return { theta, scaling: undefined };
  if (config.rope_scaling === null) return { theta, scaling: { type: "default" } };
  const scaling = record(config.rope_scaling);
  if (!scaling) throw new InputError("rope_scaling is neither an object nor null", { where });
  // Files that transformers 5 wrote for older readers repeat the base in here.
  const inner = scaling.rope_theta == null
    ? undefined
    : positive(scaling.rope_theta, "rope_scaling.rope_theta", where);
  return {
    theta: agree("the rope base", theta, inner, where),
    scaling: readScaling(scaling, "rope_scaling", where),
  };
}

/** transformers 5: everything in `rope_parameters`. */
function readNewer(config: Readonly<Record<string, unknown>>, where: string): RopeSettings {
  if (config.rope_parameters == null) return { theta: undefined, scaling: undefined };
  const parameters = record(config.rope_parameters);
  if (!parameters) throw new InputError("rope_parameters is neither an object nor null", { where });
  if (Object.values(parameters).some((value) => record(value))) {
    throw new InputError("rope_parameters differ by layer type, which is not supported", { where });
  }
  const theta = parameters.rope_theta == null
    ? undefined
    : positive(parameters.rope_theta, "rope_parameters.rope_theta", where);
  return { theta, scaling: readScaling(parameters, "rope_parameters", where) };
}

function readScaling(parameters: Record<string, unknown>, path: string, where: string): RopeScaling {
  const named = [parameters.rope_type, parameters.type].filter((type) => type != null);
  const type = named[0] ?? "default";
  if (named.length === 2 && named[0] !== named[1]) {
    throw new InputError(`${path}.rope_type and ${path}.type differ: ${named.join(", ")}`, { where });
  }
  const read = (key: string) => positive(parameters[key], `${path}.${key}`, where);
  switch (type) {
    case "default":
      return { type: "default" };
    case "linear":
      return { type: "linear", factor: read("factor") };
    case "llama3": {
      const lowFactor = read("low_freq_factor");
      const highFactor = read("high_freq_factor");
      if (highFactor <= lowFactor) {
        throw new InputError(
          `${path}.high_freq_factor (${highFactor}) is not above low_freq_factor (${lowFactor})`,
          {
            where,
          },
        );
      }
      return {
        type: "llama3",
        factor: read("factor"),
        lowFactor,
        highFactor,
        originalContext: read("original_max_position_embeddings"),
      };
    }
    default:
      throw new InputError(`rope scaling ${JSON.stringify(type)} in ${path} is not supported`, {
        where,
        hint: "Supported: default, linear, llama3.",
      });
  }
}

function agree<T>(what: string, older: T | undefined, newer: T | undefined, where: string): T | undefined {
  if (older !== undefined && newer !== undefined && JSON.stringify(older) !== JSON.stringify(newer)) {
    throw new InputError(
      `${what} is given twice and differs: ${JSON.stringify(older)} and ${JSON.stringify(newer)}`,
      {
        where,
        hint:
          "Keep the one that the model was trained with, in rope_theta/rope_scaling or in rope_parameters.",
      },
    );
  }
  return older ?? newer;
}

function positive(value: unknown, path: string, where: string): number {
  if (typeof value === "number" && Number.isFinite(value) && value > 0) return value;
  const what = value === undefined ? "is missing" : `is ${JSON.stringify(value)}`;
  throw new InputError(`${path} ${what}; expected a positive number`, { where });
}

function record(value: unknown): Record<string, unknown> | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? value as Record<string, unknown>
    : undefined;
}
