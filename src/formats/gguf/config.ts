/**
 * GGUF metadata of the llama architecture (Llama, Mistral and their like) as a Hugging Face config.json.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { GgufFile } from "./gguf.ts";

/** Hyperparameters of the architecture that change the computation and are not known here. Their neutral values are fine. */
const neutral: Readonly<Record<string, readonly unknown[]>> = {
  "llama.expert_count": [0],
  "llama.attention.scale": [0],
  "llama.attention.max_alibi_bias": [0],
  "llama.attention.clamp_kqv": [0],
  "llama.attention.causal": [true],
  "llama.logit_scale": [0, 1],
  "llama.residual_scale": [0, 1],
  "llama.embedding_scale": [0, 1],
  "llama.use_parallel_residual": [false],
};

const ATTENTION_BIAS = /^blk\.\d+\.attn_(q|k|v|output)\.bias$/;
const MLP_BIAS = /^blk\.\d+\.ffn_(gate|up|down)\.bias$/;

/** Refuses files that are not a whole model of the llama architecture. */
export function requireLlama(file: GgufFile): void {
  const where = file.source.name;
  const architecture = file.metadata.get("general.architecture");
  if (architecture !== "llama") {
    throw new InputError(`general.architecture is ${JSON.stringify(architecture)}, which is not supported`, {
      where,
      hint: 'Supported in GGUF files: "llama", which Llama, Mistral and SmolLM models have.',
    });
  }
  const type = file.metadata.get("general.type") ?? "model";
  if (type !== "model") throw new InputError(`it holds ${JSON.stringify(type)}, not a model`, { where });
  const splits = file.metadata.get("split.count");
  if (typeof splits === "number" && splits > 1) {
    throw new InputError(`it is one of ${splits} parts of a model`, {
      where,
      hint: "Join them with llama-gguf-split --merge first-part.gguf whole.gguf.",
    });
  }
  for (const [key, values] of Object.entries(neutral)) {
    const value = file.metadata.get(key);
    if (value !== undefined && !values.includes(value)) {
      throw new InputError(`${key} is ${value}, which is not supported`, { where });
    }
  }
}

/**
 * The config of a model.
 *
 * @param ropeFactors What the rotary frequencies are divided by, when the file has them.
 * @throws {InputError} naming a key that is missing or of the wrong type.
 */
export function ggufConfig(file: GgufFile, ropeFactors: number[] | undefined): Record<string, unknown> {
  const { metadata, tensors } = file;
  const where = file.source.name;

  function optional(key: string): number | undefined {
    const value = metadata.get(key);
    if (value === undefined || typeof value === "number") return value;
    throw new InputError(`${key} is not a single number`, { where });
  }

  function required(key: string): number {
    const value = optional(key);
    if (value === undefined) throw new InputError(`the metadata has no ${key}`, { where });
    return value;
  }

  const hiddenSize = required("llama.embedding_length");
  const heads = required("llama.attention.head_count");
  const headDim = optional("llama.attention.key_length") ?? hiddenSize / heads;
  for (const key of ["llama.attention.value_length", "llama.rope.dimension_count"]) {
    const value = optional(key) ?? headDim;
    if (value !== headDim) {
      throw new InputError(`${key} is ${value}; only the width of a head, ${headDim}, is supported`, {
        where,
      });
    }
  }
  const contextLength = required("llama.context_length");
  const window = optional("llama.attention.sliding_window") ?? 0;
  if (window > 0 && window < contextLength) {
    throw new InputError(`llama.attention.sliding_window is ${window}, which is not supported`, { where });
  }

  const ends = ["eos", "eot", "eom"].map((kind) => optional(`tokenizer.ggml.${kind}_token_id`));
  const eosTokens = [...new Set(ends.filter((id) => id !== undefined))];
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_act: "silu",
    hidden_size: hiddenSize,
    intermediate_size: required("llama.feed_forward_length"),
    num_hidden_layers: required("llama.block_count"),
    num_attention_heads: heads,
    num_key_value_heads: optional("llama.attention.head_count_kv") ?? heads,
    head_dim: headDim,
    vocab_size: optional("llama.vocab_size") ?? tensors.get("token_embd.weight")?.shape[0],
    max_position_embeddings: contextLength,
    rms_norm_eps: shortestDecimal(required("llama.attention.layer_norm_rms_epsilon")),
    // 10000 is what the format gives a file without the key.
    rope_theta: shortestDecimal(optional("llama.rope.freq_base") ?? 10000),
    rope_scaling: ropeScaling(file, optional),
    ...(ropeFactors && { rope_frequency_factors: ropeFactors }),
    tie_word_embeddings: !tensors.has("output.weight"),
    attention_bias: hasAny(tensors, ATTENTION_BIAS),
    mlp_bias: hasAny(tensors, MLP_BIAS),
    bos_token_id: optional("tokenizer.ggml.bos_token_id") ?? null,
    eos_token_id: eosTokens.length > 1 ? eosTokens : eosTokens[0] ?? null,
  };
}

function hasAny(tensors: GgufFile["tensors"], pattern: RegExp): boolean {
  return [...tensors.keys()].some((name) => pattern.test(name));
}

/**
 * The biases that a config promises and a file may leave out, each of which is then zeros, by the weight that it belongs to.
 *
 * @param config From {@linkcode ggufConfig}
 */
export function optionalBiases(
  config: Readonly<Record<string, unknown>>,
  tensors: GgufFile["tensors"],
): Map<string, string> {
  const found = new Map<string, string>();
  for (const weight of tensors.keys()) {
    const bias = weight.replace(/\.weight$/, ".bias");
    const promised = ATTENTION_BIAS.test(bias) && config.attention_bias === true ||
      MLP_BIAS.test(bias) && config.mlp_bias === true;
    if (promised && !tensors.has(bias)) found.set(bias, weight);
  }
  return found;
}

function ropeScaling(file: GgufFile, optional: (key: string) => number | undefined): unknown {
  const type = file.metadata.get("llama.rope.scaling.type");
  const factor = optional("llama.rope.scaling.factor") ?? optional("llama.rope.scale_linear");
  if (type === "none" || (type === undefined && (factor === undefined || factor === 1))) return null;
  return { rope_type: type ?? "linear", ...(factor !== undefined && { factor: shortestDecimal(factor) }) };
}

/** The shortest decimal that is this f32: 1e-5 rather than 0.000009999999747378752. */
function shortestDecimal(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const rounded = Number(value.toPrecision(digits));
    if (Math.fround(rounded) === Math.fround(value)) return rounded;
  }
  return value;
}
