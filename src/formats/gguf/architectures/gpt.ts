/**
 * GPT-2 and GPT-NeoX.
 *
 * @module
 */
import { type GgufHyperparameters, ofLayers } from "../hyperparameters.ts";
import type { GgufArchitecture } from "./architecture.ts";
import type { GgufKeys } from "./keys.ts";
import {
  modelFields,
  ropeScaling,
  ropeTheta,
  rotaryPart,
  tokenFields,
  ungroupedHeads,
  writeRope,
} from "./usual.ts";

function normEpsilon(keys: GgufKeys): number {
  return keys.decimal("attention.layer_norm_epsilon") ?? keys.required("attention.layer_norm_epsilon");
}

/** GPT-2, whose matrices are [out, in] as all others are. */
export const gpt2: GgufArchitecture = {
  name: "gpt2",
  names: {
    outside: {
      "token_embd.weight": "transformer.wte.weight",
      "position_embd.weight": "transformer.wpe.weight",
      "output_norm.weight": "transformer.ln_f.weight",
      "output_norm.bias": "transformer.ln_f.bias",
      "output.weight": "lm_head.weight",
    },
    layers: "transformer.h",
    modules: {
      attn_norm: "ln_1",
      attn_qkv: "attn.c_attn",
      attn_output: "attn.c_proj",
      ffn_norm: "ln_2",
      ffn_up: "mlp.c_fc",
      ffn_down: "mlp.c_proj",
    },
  },
  layerNorm: true,
  wholeWidth: true,
  read(keys) {
    const { hiddenSize, heads } = ungroupedHeads(keys);
    return {
      ...modelFields({ architecture: "GPT2LMHeadModel", type: "gpt2" }),
      activation_function: "gelu_new",
      n_embd: hiddenSize,
      n_inner: keys.required("feed_forward_length"),
      n_layer: keys.required("block_count"),
      n_head: heads,
      n_positions: keys.required("context_length"),
      layer_norm_epsilon: normEpsilon(keys),
      ...tokenFields(keys),
    };
  },
  write: () => {},
};

/** GPT-NeoX. */
export const gptNeox: GgufArchitecture = {
  name: "gptneox",
  names: {
    outside: {
      "token_embd.weight": "gpt_neox.embed_in.weight",
      "output_norm.weight": "gpt_neox.final_layer_norm.weight",
      "output_norm.bias": "gpt_neox.final_layer_norm.bias",
      "output.weight": "embed_out.weight",
    },
    layers: "gpt_neox.layers",
    modules: {
      attn_norm: "input_layernorm",
      attn_qkv: "attention.query_key_value",
      attn_output: "attention.dense",
      ffn_norm: "post_attention_layernorm",
      ffn_up: "mlp.dense_h_to_4h",
      ffn_down: "mlp.dense_4h_to_h",
    },
  },
  rows: { attn_qkv: "parts" },
  layerNorm: true,
  wholeWidth: true,
  ownHead: true,
  read(keys) {
    const { hiddenSize, heads, headDim } = ungroupedHeads(keys);
    return {
      ...modelFields({ architecture: "GPTNeoXForCausalLM", type: "gpt_neox" }),
      hidden_act: "gelu",
      hidden_size: hiddenSize,
      intermediate_size: keys.required("feed_forward_length"),
      num_hidden_layers: keys.required("block_count"),
      num_attention_heads: heads,
      max_position_embeddings: keys.required("context_length"),
      layer_norm_eps: normEpsilon(keys),
      rotary_pct: rotaryPart(keys, headDim),
      rotary_emb_base: ropeTheta(keys),
      rope_scaling: ropeScaling(keys),
      use_parallel_residual: keys.flag("use_parallel_residual") ?? true,
      ...tokenFields(keys),
    };
  },
  write(config: GgufHyperparameters, keys) {
    writeRope(keys, config, { tensor: false });
    keys.flag("use_parallel_residual", ofLayers(config, ({ parallel }) => parallel) ?? false);
  },
};
