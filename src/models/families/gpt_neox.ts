/**
 * The GPT-NeoX family (Black et al., arXiv 2204.06745; Pythia): layer norms, rotary positions of a part of each head, attention and MLP side by
 * side, queries, keys and values of each head next to each other in one linear layer.
 *
 * @module
 */
import { parseDecoderConfig } from "../config.ts";
import { describedFamily } from "../decoder/record.ts";
import { ACTIVATIONS, everyLayer, rotaryTableOf } from "../decoder/usual.ts";
import type { LayerDescription, NormDescription } from "../decoder/description.ts";

/** GPT-NeoX. */
export const gptNeox = describedFamily({
  name: "gpt_neox",
  architectures: { GPTNeoXForCausalLM: "gpt_neox" },
  names: {
    embedding: "gpt_neox.embed_in.weight",
    layers: "gpt_neox.layers",
    head: "embed_out",
    mlxLayers: "model.h",
  },
  gguf: "gptneox",
  // The causal mask, and what masked scores become.
  buffers: /\.attention\.(bias|masked_bias)$/,
  describe(fields, architecture) {
    const rope = {
      ...fields.config,
      rope_theta: fields.get("rotary_emb_base") ?? fields.config.rope_theta,
      partial_rotary_factor: fields.get("rotary_pct") ?? fields.config.partial_rotary_factor,
    };
    const { config, rotary } = parseDecoderConfig(fields, architecture, {
      grouping: "none",
      ropeTheta: 10_000,
      partialRotary: 0.25,
      rope,
      names: { normEpsilon: "layer_norm_eps" },
    });
    const norm = (name: string): NormDescription => ({ kind: "layer", name, epsilon: config.normEpsilon });
    const linear = (name: string, bias = true) => ({ name, bias });
    const bias = fields.flag("attention_bias", true);
    const layer: LayerDescription = {
      attention: {
        projections: { fused: linear("attention.query_key_value", bias), order: "heads" },
        output: linear("attention.dense", bias),
        rotary: rotaryTableOf(rotary!),
        scale: config.headDim ** -0.5,
      },
      mlp: {
        kind: "plain",
        activation: fields.choice("hidden_act", ACTIVATIONS, "gelu"),
        width: config.intermediateSize,
        up: linear("mlp.dense_h_to_4h"),
        down: linear("mlp.dense_4h_to_h"),
      },
      norms: { beforeAttention: norm("input_layernorm"), beforeMlp: norm("post_attention_layernorm") },
      parallel: fields.flag("use_parallel_residual", true),
    };
    return {
      ...config,
      description: {
        layers: everyLayer(config, () => layer),
        finalNorm: norm("gpt_neox.final_layer_norm"),
      },
    };
  },
});
