/**
 * A small config of every family, with what sets the family apart in force at sizes of a few tokens.
 *
 * @module
 */

type Config = Readonly<Record<string, unknown>>;

const SIZES = { layers: 2, hidden: 32, heads: 4, keyValueHeads: 2, mlp: 44, context: 64 };

const usual = {
  hidden_act: "silu",
  hidden_size: SIZES.hidden,
  intermediate_size: SIZES.mlp,
  num_hidden_layers: SIZES.layers,
  num_attention_heads: SIZES.heads,
  num_key_value_heads: SIZES.keyValueHeads,
  max_position_embeddings: SIZES.context,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
};
const { hidden_act: _, ...gemma } = { ...usual, head_dim: 12, query_pre_attn_scalar: 10, sliding_window: 8 };
const { rms_norm_eps: __, num_key_value_heads: ___, rope_theta: ____, ...neox } = usual;

/** By the class of transformers. */
const CONFIGS: Readonly<Record<string, Config>> = {
  LlamaForCausalLM: { model_type: "llama", ...usual, attention_bias: true, mlp_bias: true },
  MistralForCausalLM: { model_type: "mistral", ...usual, sliding_window: 8 },
  Qwen2ForCausalLM: { model_type: "qwen2", ...usual, tie_word_embeddings: true },
  Qwen3ForCausalLM: { model_type: "qwen3", ...usual, head_dim: 12 },
  Qwen3MoeForCausalLM: {
    model_type: "qwen3_moe",
    ...usual,
    num_experts: 3,
    num_experts_per_tok: 2,
    moe_intermediate_size: 20,
    norm_topk_prob: true,
    mlp_only_layers: [1],
  },
  SmolLM3ForCausalLM: { model_type: "smollm3", ...usual, no_rope_layer_interval: 2 },
  Phi3ForCausalLM: {
    model_type: "phi3",
    ...usual,
    sliding_window: 8,
    partial_rotary_factor: 0.5,
    original_max_position_embeddings: 16,
    rope_scaling: { type: "longrope", short_factor: [1, 1.5], long_factor: [2, 4] },
  },
  Gemma2ForCausalLM: {
    model_type: "gemma2",
    ...gemma,
    attn_logit_softcapping: 3,
    final_logit_softcapping: 6,
  },
  Gemma3ForCausalLM: {
    model_type: "gemma3_text",
    ...gemma,
    rope_local_base_freq: 100,
    sliding_window_pattern: 2,
  },
  Olmo2ForCausalLM: { model_type: "olmo2", ...usual },
  GraniteForCausalLM: {
    model_type: "granite",
    ...usual,
    embedding_multiplier: 6,
    attention_multiplier: 0.4,
    residual_multiplier: 0.6,
    logits_scaling: 3,
  },
  GPT2LMHeadModel: {
    model_type: "gpt2",
    n_embd: SIZES.hidden,
    n_layer: SIZES.layers,
    n_head: SIZES.heads,
    n_positions: SIZES.context,
    layer_norm_epsilon: 1e-5,
  },
  GPTNeoXForCausalLM: {
    model_type: "gpt_neox",
    ...neox,
    hidden_act: "gelu",
    layer_norm_eps: 1e-5,
    rotary_pct: 0.5,
  },
};

/** Every class that is known. */
export const ARCHITECTURES: readonly string[] = Object.keys(CONFIGS);

/** The config of a class, with tokens as the tests' tokenizer has them. */
export function tinyConfig(architecture: string, vocabularySize: number): Record<string, unknown> {
  return {
    architectures: [architecture],
    ...CONFIGS[architecture],
    vocab_size: vocabularySize,
    bos_token_id: 1,
    eos_token_id: 2,
  };
}
