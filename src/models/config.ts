/**
 * What a config.json says of a decoder, whatever its family, read from both generations of the file: `rope_theta`,
 * `rope_scaling` and `torch_dtype` as transformers 4 wrote it, `rope_parameters` and `dtype` as transformers 5 does.
 * A field that would change the computation and is not understood here is refused, never ignored.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";
import type { Fields } from "./fields.ts";
import { parseRope, type Rotary } from "./rope.ts";

/** The numbers of a decoder that others than its family need; what else a family computes with stands in its description. */
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
  /**
   * Rotary angle per position of pair i (dimensions i and i + width / 2), [width / 2], where width is the rotated part of a head: headDim
   * for most. Of layers that attend everything, where layers differ; empty where nothing is rotated.
   */
  readonly inverseFrequencies: Float64Array;
  /**
   * What cosines and sines of the rotary embedding are multiplied by (`attention_scaling` in transformers). The scale of the attention
   * scores is something else.
   */
  readonly attentionScaling: number;
}

/** Where families name or read the same thing differently. */
export interface ConfigRules {
  /** Without `num_key_value_heads`: each query head has its own keys and values, or the config is refused. */
  readonly grouping: "none" | "required";
  /** Base of the rotary frequencies where the config names none; absent where nothing is rotated. */
  readonly ropeTheta?: number;
  /** The rotated part of a head where the config names none; when absent all of it always is. */
  readonly partialRotary?: number;
  /** The config as far as rotary positions go, where the family has names of its own for them. */
  readonly rope?: Readonly<Record<string, unknown>>;
  /** Width of a head where the config names none; hidden_size / num_attention_heads when absent. */
  readonly headDim?: number;
  /** Whether the head is the embedding where the config does not say. */
  readonly tied?: boolean;
  /** Names of fields that are not the usual ones. */
  readonly names?: Partial<Readonly<Record<keyof typeof FIELD_NAMES, string>>>;
  /** Width of the MLP where the config names none. */
  readonly intermediateSize?: number;
}

const FIELD_NAMES = {
  hiddenSize: "hidden_size",
  intermediateSize: "intermediate_size",
  layers: "num_hidden_layers",
  attentionHeads: "num_attention_heads",
  contextLength: "max_position_embeddings",
  normEpsilon: "rms_norm_eps",
} as const;

const ROPE_FIELDS = [
  "rope_theta",
  "rope_scaling",
  "rope_parameters",
  "rope_frequency_factors",
  "partial_rotary_factor",
  "original_max_position_embeddings",
];

/** What {@linkcode parseDecoderConfig} reads. */
export interface DecoderFields {
  readonly config: DecoderConfig;
  /** How positions are rotated; undefined for a family that rotates none. */
  readonly rotary: Rotary | undefined;
}

/**
 * Reads what the configs of all families say.
 *
 * @param fields Of the parsed config.json, or the same made from GGUF metadata (`rope_frequency_factors` included).
 * @throws {InputError} naming the field, what it holds and what would be right.
 */
export function parseDecoderConfig(fields: Fields, architecture: string, rules: ConfigRules): DecoderFields {
  const { config, where } = fields;
  ROPE_FIELDS.forEach((key) => rules.ropeTheta === undefined || fields.get(key));
  if (config.quantization_config != null) {
    throw new InputError("quantization_config is set; weights quantised by other tools cannot be read", {
      where,
      hint: "Use the model's float32, float16 or bfloat16 weights, or a GGUF file.",
    });
  }
  const names = { ...FIELD_NAMES, ...rules.names };
  const hiddenSize = fields.count(names.hiddenSize);
  const attentionHeads = fields.count(names.attentionHeads);
  const keyValueHeads = fields.count(
    "num_key_value_heads",
    rules.grouping === "none" ? attentionHeads : undefined,
  );
  if (attentionHeads % keyValueHeads !== 0) {
    throw new InputError(
      `${names.attentionHeads} (${attentionHeads}) is not a multiple of num_key_value_heads (${keyValueHeads})`,
      { where },
    );
  }
  const headDim = headWidth(fields, rules, { hiddenSize, attentionHeads, names });
  const vocabularySize = fields.count("vocab_size");
  const contextLength = fields.count(names.contextLength);
  const rotary = rules.ropeTheta === undefined ? undefined : parseRope(
    rules.rope ?? config,
    { headDim, contextLength, theta: rules.ropeTheta, partial: rules.partialRotary },
    where,
  );
  const { theta, inverseFrequencies, attentionScaling } = rotary ?? NO_ROTATION;
  return {
    rotary,
    config: {
      architecture,
      hiddenSize,
      intermediateSize: fields.count(names.intermediateSize, rules.intermediateSize),
      layers: fields.count(names.layers),
      attentionHeads,
      keyValueHeads,
      headDim,
      vocabularySize,
      normEpsilon: fields.epsilon(names.normEpsilon),
      contextLength,
      tiedHead: fields.flag("tie_word_embeddings", rules.tied),
      bosToken: fields.tokens("bos_token_id", vocabularySize)[0],
      eosTokens: fields.tokens("eos_token_id", vocabularySize),
      ...{ ropeTheta: theta, inverseFrequencies, attentionScaling },
    },
  };
}

const NO_ROTATION = { theta: 10_000, inverseFrequencies: new Float64Array(0), attentionScaling: 1 };

function headWidth(
  fields: Fields,
  rules: ConfigRules,
  { hiddenSize, attentionHeads, names }: {
    hiddenSize: number;
    attentionHeads: number;
    names: Readonly<Record<keyof typeof FIELD_NAMES, string>>;
  },
): number {
  const { config, where } = fields;
  if (config.head_dim == null && rules.headDim === undefined && hiddenSize % attentionHeads !== 0) {
    throw new InputError(
      `${names.hiddenSize} (${hiddenSize}) is not a multiple of ${names.attentionHeads} (${attentionHeads}), and there is no head_dim`,
      { where },
    );
  }
  return fields.count("head_dim", rules.headDim ?? hiddenSize / attentionHeads);
}
