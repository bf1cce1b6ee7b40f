/**
 * What a config.json says of a decoder, whatever its family, read from both generations of the file: `rope_theta`,
 * `rope_scaling` and `torch_dtype` as transformers 4 wrote it, `rope_parameters` and `dtype` as transformers 5 does.
 * A field that would change the computation and is not understood here is refused, never ignored.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";
import { parseRope } from "./rope.ts";

/** The numbers of a decoder that families share; each adds its own. */
export interface DecoderConfig {
  /** Its class in transformers, which names the family. */
  readonly architecture: string;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly attentionHeads: number;
  /** Heads of keys and values; each serves `attentionHeads / keyValueHeads` query heads. */
  readonly keyValueHeads: number;
  /** Width of a head; `attentionHeads * headDim` may differ from `hiddenSize`. */
  readonly headDim: number;
  readonly vocabularySize: number;
  readonly normEpsilon: number;
  /** Positions the model was trained for (`max_position_embeddings`). */
  readonly contextLength: number;
  /** Whether the head is the embedding matrix, and no `lm_head.weight` is stored. */
  readonly tiedHead: boolean;
  readonly bosToken?: number;
  /** Tokens that end a sequence; may be empty. */
  readonly eosTokens: readonly number[];
  /** Base of the rotary frequencies before any scaling; `inverseFrequencies` is what to compute with. */
  readonly ropeTheta: number;
  /** Rotary angle per position of pair i (dimensions i and i + headDim / 2), [headDim / 2]. */
  readonly inverseFrequencies: Float64Array;
  /**
   * What cosines and sines of the rotary embedding are multiplied by, 1 for every scaling known here
   * (`attention_scaling` in transformers). The scale of the attention scores is headDim ** -0.5, not this.
   */
  readonly attentionScaling: number;
}

/** Where families read the same field differently. */
export interface ConfigRules {
  /** Without `num_key_value_heads`: each query head has its own keys and values, or the config is refused. */
  readonly grouping: "none" | "required";
  /** Base of the rotary frequencies where the config names none. */
  readonly ropeTheta: number;
}

/**
 * Reads what the configs of all families say in the same words.
 *
 * @param config The parsed config.json, or the same made from GGUF metadata (`rope_frequency_factors` included).
 * @param where The file, for errors.
 * @throws {InputError} naming the field, what it holds and what would be right.
 */
export function parseDecoderConfig(
  config: Readonly<Record<string, unknown>>,
  architecture: string,
  where: string,
  { grouping, ropeTheta }: ConfigRules,
): DecoderConfig {
  if (config.quantization_config != null) {
    throw new InputError("quantization_config is set; weights quantised by other tools cannot be read", {
      where,
      hint: "Use the model's float32, float16 or bfloat16 weights, or a GGUF file.",
    });
  }
  const hiddenSize = count(config, "hidden_size", where);
  const attentionHeads = count(config, "num_attention_heads", where);
  const keyValueHeads = config.num_key_value_heads == null && grouping === "none"
    ? attentionHeads
    : count(config, "num_key_value_heads", where);
  if (attentionHeads % keyValueHeads !== 0) {
    throw new InputError(
      `num_attention_heads (${attentionHeads}) is not a multiple of num_key_value_heads (${keyValueHeads})`,
      { where },
    );
  }
  if (config.head_dim == null && hiddenSize % attentionHeads !== 0) {
    throw new InputError(
      `hidden_size (${hiddenSize}) is not a multiple of num_attention_heads (${attentionHeads}), and there is no head_dim`,
      { where },
    );
  }
  const headDim = config.head_dim == null ? hiddenSize / attentionHeads : count(config, "head_dim", where);
  if (headDim % 2 !== 0) {
    throw new InputError(`head_dim is ${headDim}; rotary positions need an even one`, { where });
  }
  const normEpsilon = config.rms_norm_eps;
  if (typeof normEpsilon !== "number" || !(normEpsilon > 0 && normEpsilon < 1)) {
    throw new InputError(`rms_norm_eps is ${JSON.stringify(normEpsilon)}; expected a small positive number`, {
      where,
    });
  }
  const vocabularySize = count(config, "vocab_size", where);
  return {
    architecture,
    hiddenSize,
    intermediateSize: count(config, "intermediate_size", where),
    layers: count(config, "num_hidden_layers", where),
    attentionHeads,
    keyValueHeads,
    headDim,
    vocabularySize,
    normEpsilon,
    contextLength: count(config, "max_position_embeddings", where),
    tiedHead: flag(config, "tie_word_embeddings", where),
    bosToken: tokens(config, "bos_token_id", vocabularySize, where)[0],
    eosTokens: tokens(config, "eos_token_id", vocabularySize, where),
    ...parseRope(config, headDim, ropeTheta, where),
  };
}

function count(config: Readonly<Record<string, unknown>>, key: string, where: string): number {
  const value = config[key];
  if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return value;
  const what = value === undefined ? "is missing" : `is ${JSON.stringify(value)}`;
  throw new InputError(`${key} ${what}; expected a positive integer`, { where });
}

/** A field that is true, false or absent, which is false. */
export function flag(config: Readonly<Record<string, unknown>>, key: string, where: string): boolean {
  const value = config[key] ?? false;
  if (typeof value === "boolean") return value;
  throw new InputError(`${key} is ${JSON.stringify(value)}; expected true or false`, { where });
}

function tokens(
  config: Readonly<Record<string, unknown>>,
  key: string,
  vocabularySize: number,
  where: string,
): number[] {
  const value = config[key] ?? [];
  const list = Array.isArray(value) ? value : [value];
  for (const token of list) {
    if (!Number.isSafeInteger(token) || token < 0 || token >= vocabularySize) {
      throw new InputError(
        `${key} holds ${JSON.stringify(token)}; expected token ids below ${vocabularySize}`,
        { where },
      );
    }
  }
  return list;
}
