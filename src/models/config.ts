/**
 * What a config.json says of a decoder of the Llama family, read from both generations of the file: `rope_theta`,
 * `rope_scaling` and `torch_dtype` as transformers 4 wrote it, `rope_parameters` and `dtype` as transformers 5 does.
 * A field that would change the computation and is not understood here is refused, never ignored.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";
import { parseRope } from "./rope.ts";

/** A Llama-like decoder: RMS norm before attention and MLP, rotary positions, grouped-query attention, gated SiLU. */
export interface DecoderConfig {
  readonly architecture: "LlamaForCausalLM" | "MistralForCausalLM";
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
  /** Whether q, k, v and o have a bias. */
  readonly attentionBias: boolean;
  /** Whether gate, up and down have a bias. */
  readonly mlpBias: boolean;
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
  readonly activation: "silu";
}

const supported = ["LlamaForCausalLM", "MistralForCausalLM"] as const;

/**
 * Reads a decoder's config.
 *
 * @param config The parsed config.json, or the same made from GGUF metadata (`rope_frequency_factors` included).
 * @param where The file, for errors.
 * @throws {InputError} naming the field, what it holds and what would be right.
 *
 * @example
 * ```ts
 * const config = parseDecoderConfig(source.config, source.path);
 * config.layers; // 6
 * ```
 */
export function parseDecoderConfig(config: Record<string, unknown>, where: string): DecoderConfig {
  const architecture = parseArchitecture(config, where);
  if (config.quantization_config != null) {
    throw new InputError("quantization_config is set; weights quantised by other tools cannot be read", {
      where,
      hint: "Use the model's float32, float16 or bfloat16 weights, or a GGUF file.",
    });
  }
  const activation = config.hidden_act;
  if (activation !== "silu" && activation !== "swish") {
    throw new InputError(`hidden_act is ${JSON.stringify(activation)}; only "silu" is supported`, { where });
  }

  const hiddenSize = count(config, "hidden_size", where);
  const attentionHeads = count(config, "num_attention_heads", where);
  const isMistral = architecture === "MistralForCausalLM";
  // transformers takes 8 for a Mistral without this field, which no file relies on; for Llama it means no grouping.
  const keyValueHeads = config.num_key_value_heads == null && !isMistral
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
  const contextLength = count(config, "max_position_embeddings", where);
  const vocabularySize = count(config, "vocab_size", where);
  if (isMistral) refuseSlidingWindow(config, contextLength, where);

  const normEpsilon = config.rms_norm_eps;
  if (typeof normEpsilon !== "number" || !(normEpsilon > 0 && normEpsilon < 1)) {
    throw new InputError(`rms_norm_eps is ${JSON.stringify(normEpsilon)}; expected a small positive number`, {
      where,
    });
  }

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
    contextLength,
    tiedHead: flag(config, "tie_word_embeddings", where),
    // Mistral has no biases whatever its config says, as in transformers.
    attentionBias: !isMistral && flag(config, "attention_bias", where),
    mlpBias: !isMistral && flag(config, "mlp_bias", where),
    bosToken: tokens(config, "bos_token_id", vocabularySize, where)[0],
    eosTokens: tokens(config, "eos_token_id", vocabularySize, where),
    ...parseRope(config, headDim, where),
    activation: "silu",
  };
}

function parseArchitecture(config: Record<string, unknown>, where: string): DecoderConfig["architecture"] {
  const named = Array.isArray(config.architectures) ? config.architectures : [];
  const byType: Record<string, string> = { llama: "LlamaForCausalLM", mistral: "MistralForCausalLM" };
  const type = typeof config.model_type === "string" ? config.model_type : undefined;
  const architecture = named.length > 0 ? named[0] : type && byType[type];
  const found = supported.find((name) => name === architecture);
  if (!found || named.length > 1) {
    const what = named.length > 0
      ? `architectures ${JSON.stringify(named)}`
      : `model_type ${JSON.stringify(type)}`;
    throw new InputError(`${what} is not supported`, {
      where,
      hint: `Supported architectures: ${supported.join(", ")}.`,
    });
  }
  if (type !== undefined && byType[type] !== found) {
    throw new InputError(`model_type ${JSON.stringify(type)} does not belong to architecture ${found}`, {
      where,
    });
  }
  return found;
}

/** Without the field, transformers gives a Mistral a window of 4096; `null` means none. */
function refuseSlidingWindow(config: Record<string, unknown>, contextLength: number, where: string): void {
  const window = config.sliding_window === undefined ? 4096 : config.sliding_window;
  if (window === null || config.use_sliding_window === false) return;
  if (typeof window === "number" && window >= contextLength) return;
  const given = config.sliding_window === undefined ? "absent, which means 4096" : JSON.stringify(window);
  throw new InputError(`sliding_window is ${given}; attention within a window is not supported`, {
    where,
    hint: `A window of null, or of at least max_position_embeddings (${contextLength}), is fine.`,
  });
}

function count(config: Record<string, unknown>, key: string, where: string): number {
  const value = config[key];
  if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return value;
  const what = value === undefined ? "is missing" : `is ${JSON.stringify(value)}`;
  throw new InputError(`${key} ${what}; expected a positive integer`, { where });
}

function flag(config: Record<string, unknown>, key: string, where: string): boolean {
  const value = config[key] ?? false;
  if (typeof value === "boolean") return value;
  throw new InputError(`${key} is ${JSON.stringify(value)}; expected true or false`, { where });
}

function tokens(
  config: Record<string, unknown>,
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
