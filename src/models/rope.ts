/**
 * Frequencies and angles of the rotary position embedding (Su et al., arXiv 2104.09864) and their scaling for longer contexts, computed in
 * f64 by the formulas of transformers' `modeling_rope_utils.py`.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";
import { asObject } from "../base/json.ts";
import type { RawConfig } from "./fields.ts";
import { type Yarn, yarnFrequencies } from "./yarn.ts";

/** Rotary positions of the heads of a layer. */
export interface Rotary {
  /** Base of the frequencies before any scaling; `inverseFrequencies` is what to compute with. */
  readonly theta: number;
  /** Width of the part of a head that is rotated, from its first value on; the rest passes. */
  readonly width: number;
  /** Angle per position of pair i (values i and i + width / 2), [width / 2]. */
  readonly inverseFrequencies: Float64Array;
  /** What cosines and sines are multiplied by (`attention_scaling` in transformers). */
  readonly attentionScaling: number;
  /**
   * Frequencies of every position of a sequence that is longer than `beyond` tokens (LongRoPE; Ding et al., arXiv 2402.13753).
   */
  readonly long?: { readonly beyond: number; readonly inverseFrequencies: Float64Array };
}

/** What a family knows of its rotary positions before it reads a config. */
export interface RopeRules {
  readonly headDim: number;
  /** The base where the config names none, as transformers has it for the family. */
  readonly theta: number;
  /** The rotated part of a head where the config names none; when absent all of it always is. */
  readonly partial?: number | undefined;
  /** `max_position_embeddings`, which the scale of cosines follows from in LongRoPE, and in YaRN where a file says no more. */
  readonly contextLength: number;
}

/** How a model's frequencies were stretched after pre-training. */
type RopeScaling =
  | { type: "default" }
  | { type: "linear"; factor: number }
  | { type: "llama3"; factor: number; lowFactor: number; highFactor: number; originalContext: number }
  | {
    type: "longrope";
    short: number[];
    long: number[];
    originalContext: number;
    factor: number | undefined;
    attentionFactor: number | undefined;
  }
  | Yarn;

interface RopeSettings {
  theta: number | undefined;
  /** undefined when the file says nothing of scaling. */
  scaling: RopeScaling | undefined;
}

/**
 * Reads the rotary settings of either generation and works out the frequencies.
 *
 * @param config Its fields `rope_theta`, `rope_scaling`, `rope_parameters` and `partial_rotary_factor`
 * @throws {InputError} when the two generations disagree, or for a scaling not known here.
 */
export function parseRope(config: RawConfig, rules: RopeRules, where: string): Rotary {
  const { dimension, width } = rotatedPart(config, rules, where);
  const older = readOlder(config, where);
  const newer = readNewer(config, where);
  const theta = agree("the rope base", older.theta, newer.theta, where) ?? rules.theta;
  const scaling = agree("rope scaling", older.scaling, newer.scaling, where) ?? { type: "default" };
  const plain = Float64Array.from({ length: width / 2 }, (_, i) => theta ** (-2 * i / dimension));
  if (scaling.type === "yarn") {
    const { contextLength } = rules;
    return { theta, width, ...yarnFrequencies(plain, scaling, { theta, dimension, contextLength }) };
  }
  if (scaling.type === "longrope") return longRope(theta, width, plain, scaling, rules.contextLength, where);
  const inverseFrequencies = plain.map((frequency) => scaled(frequency, scaling));
  divideByFactors(inverseFrequencies, config.rope_frequency_factors, where);
  return { theta, width, inverseFrequencies, attentionScaling: 1 };
}

/**
 * The rotated part of a head, from `partial_rotary_factor` of either generation. Where it is odd one more value is rotated, as values go in
 * pairs, while the frequencies still fall by the odd number.
 */
function rotatedPart(
  config: RawConfig,
  { headDim, partial }: RopeRules,
  where: string,
): { dimension: number; width: number } {
  const [older, newer] = [config, asObject(config.rope_parameters)].map((owner, i) =>
    owner?.partial_rotary_factor == null ? undefined : positive(
      owner.partial_rotary_factor,
      `${i ? "rope_parameters." : ""}partial_rotary_factor`,
      where,
    )
  );
  const factor = agree("partial_rotary_factor", older, newer, where) ?? partial ?? 1;
  if (partial === undefined && factor !== 1) {
    throw new InputError(`partial_rotary_factor is ${factor}; only 1 is supported for this family`, {
      where,
    });
  }
  const dimension = Math.floor(headDim * factor);
  if (factor > 1 || dimension < 2) {
    throw new InputError(
      `partial_rotary_factor is ${factor}, which rotates ${dimension} of the ${headDim} values of a head; expected 2 or more of them`,
      { where },
    );
  }
  const width = dimension + dimension % 2;
  if (width > headDim) {
    throw new InputError(`head_dim is ${headDim}; rotary positions of whole heads need an even one`, {
      where,
    });
  }
  return { dimension, width };
}

/** Two sets of frequencies, one for sequences that the model was first trained for and one for longer ones. */
function longRope(
  theta: number,
  width: number,
  plain: Float64Array,
  scaling: RopeScaling & { type: "longrope" },
  contextLength: number,
  where: string,
): Rotary {
  const { short, long, originalContext } = scaling;
  for (const [name, factors] of Object.entries({ short_factor: short, long_factor: long })) {
    if (factors.length === plain.length) continue;
    throw new InputError(`${name} has ${factors.length} numbers, not ${plain.length}`, { where });
  }
  const factor = scaling.factor ?? contextLength / originalContext;
  const attentionScaling = scaling.attentionFactor ??
    (factor > 1 ? Math.sqrt(1 + Math.log(factor) / Math.log(originalContext)) : 1);
  return {
    ...{ theta, width, attentionScaling },
    inverseFrequencies: plain.map((frequency, i) => frequency / short[i]!),
    long: { beyond: originalContext, inverseFrequencies: plain.map((frequency, i) => frequency / long[i]!) },
  };
}

/**
 * Cosines and sines of the rotary angles, computed in f64: f32 [positions, width], each row the width/2 cosines, then the sines. Angles are
 * position times inverse frequency; pairs are i and i + width/2, as in Hugging Face. Of LongRoPE the table has twice as many rows: for each
 * position the angles of short sequences, then for each those of long ones.
 *
 * @param rows Rows of the table
 */
export function rotaryTable(rotary: Rotary, rows: number): Float32Array<ArrayBuffer> {
  if (rotary.long === undefined) return anglesOf(rotary, rows);
  const { long, ...short } = rotary;
  const table = new Float32Array(rows * rotary.width);
  table.set(anglesOf(short, rows / 2));
  table.set(anglesOf({ ...short, ...long }, rows / 2), table.length / 2);
  return table;
}

function anglesOf(
  { width, inverseFrequencies, attentionScaling }: Rotary,
  positions: number,
): Float32Array<ArrayBuffer> {
  const half = width / 2;
  const table = new Float32Array(positions * width);
  for (let p = 0; p < positions; p++) {
    for (let i = 0; i < half; i++) {
      const angle = p * inverseFrequencies[i]!;
      table[p * width + i] = Math.cos(angle) * attentionScaling;
      table[p * width + half + i] = Math.sin(angle) * attentionScaling;
    }
  }
  return table;
}

function scaled(frequency: number, scaling: Exclude<RopeScaling, { type: "longrope" | "yarn" }>): number {
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
function readOlder(config: RawConfig, where: string): RopeSettings {
  const theta = config.rope_theta == null ? undefined : positive(config.rope_theta, "rope_theta", where);
  if (config.rope_scaling === undefined) return { theta, scaling: undefined };
  if (config.rope_scaling === null) return { theta, scaling: { type: "default" } };
  const scaling = asObject(config.rope_scaling);
  if (!scaling) throw new InputError("rope_scaling is neither an object nor null", { where });
  // Files that transformers 5 wrote for older readers repeat the base in here.
  const inner = scaling.rope_theta == null
    ? undefined
    : positive(scaling.rope_theta, "rope_scaling.rope_theta", where);
  return {
    theta: agree("the rope base", theta, inner, where),
    scaling: readScaling(scaling, "rope_scaling", config, where),
  };
}

/** transformers 5: everything in `rope_parameters`. */
function readNewer(config: RawConfig, where: string): RopeSettings {
  if (config.rope_parameters == null) return { theta: undefined, scaling: undefined };
  const parameters = asObject(config.rope_parameters);
  if (!parameters) throw new InputError("rope_parameters is neither an object nor null", { where });
  if (Object.values(parameters).some((value) => asObject(value))) {
    throw new InputError("rope_parameters differ by layer type, which is not supported", { where });
  }
  const theta = parameters.rope_theta == null
    ? undefined
    : positive(parameters.rope_theta, "rope_parameters.rope_theta", where);
  return { theta, scaling: readScaling(parameters, "rope_parameters", config, where) };
}

/** What the scalings below read, and others of them leave unread as transformers does. */
const KNOWN_PARAMETERS = new Set([
  ...["rope_type", "type", "rope_theta", "partial_rotary_factor", "factor", "attention_factor"],
  ...["low_freq_factor", "high_freq_factor", "short_factor", "long_factor"],
  "original_max_position_embeddings",
]);

/** What YaRN reads beside them. */
const YARN_PARAMETERS = new Set(["beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"]);

function readScaling(
  parameters: Record<string, unknown>,
  path: string,
  config: RawConfig,
  where: string,
): RopeScaling {
  const scaling = scalingOf(parameters, path, config, where);
  for (const [key, value] of Object.entries(parameters)) {
    if (KNOWN_PARAMETERS.has(key) || value === null || value === false) continue;
    if (scaling.type === "yarn" && YARN_PARAMETERS.has(key)) continue;
    throw new InputError(`${path}.${key} is ${JSON.stringify(value)}, and what that means is not known`, {
      where,
      hint: "If it changes nothing that the model computes, take it out of config.json.",
    });
  }
  return scaling;
}

function scalingOf(
  parameters: Record<string, unknown>,
  path: string,
  config: RawConfig,
  where: string,
): RopeScaling {
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
    // LongRoPE's first name.
    case "su":
    case "longrope": {
      const optional = (key: string) => parameters[key] == null ? undefined : read(key);
      const original = config.original_max_position_embeddings;
      return {
        type: "longrope",
        short: factors(parameters.short_factor, `${path}.short_factor`, where),
        long: factors(parameters.long_factor, `${path}.long_factor`, where),
        // The config's own is asked first, and then says how far the context was stretched too.
        originalContext: original == null
          ? read("original_max_position_embeddings")
          : positive(original, "original_max_position_embeddings", where),
        factor: original == null ? optional("factor") : undefined,
        attentionFactor: optional("attention_factor"),
      };
    }
    case "yarn": {
      const optional = (key: string) => parameters[key] == null ? undefined : read(key);
      const original = config.original_max_position_embeddings;
      const [own, all] = [optional("mscale"), optional("mscale_all_dim")];
      const { truncate } = parameters;
      if (truncate !== undefined && typeof truncate !== "boolean") {
        throw new InputError(`${path}.truncate is ${JSON.stringify(truncate)}; expected true or false`, {
          where,
        });
      }
      return {
        type: "yarn",
        factor: parameters.factor === null ? undefined : read("factor"),
        // As of LongRoPE, the config's own is asked first.
        originalContext: original == null
          ? optional("original_max_position_embeddings")
          : positive(original, "original_max_position_embeddings", where),
        attentionFactor: optional("attention_factor"),
        scales: own !== undefined && all !== undefined ? [own, all] : undefined,
        fast: optional("beta_fast") ?? 32,
        slow: optional("beta_slow") ?? 1,
        truncated: truncate ?? true,
      };
    }
    default:
      throw new InputError(`rope scaling ${JSON.stringify(type)} in ${path} is not supported`, {
        where,
        hint: "Supported: default, linear, llama3, longrope, yarn.",
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

function factors(value: unknown, path: string, where: string): number[] {
  if (!Array.isArray(value)) throw new InputError(`${path} is no list of numbers`, { where });
  return value.map((factor: unknown, i) => positive(factor, `${path}[${i}]`, where));
}
