/**
 * GPT-2 (Radford et al., 2019): learned positions, layer norms, one linear layer for queries, keys and values, a plain MLP, biases
 * everywhere.
 *
 * @module
 */
import { parseDecoderConfig } from "../config.ts";
import { describedFamily } from "../decoder/record.ts";
import { ACTIVATIONS, everyLayer } from "../decoder/usual.ts";
import type { LayerDescription, NormDescription } from "../decoder/description.ts";

/** GPT-2. Its linear layers are stored [in, out]; reading the files turns them. */
export const gpt2 = describedFamily({
  name: "gpt2",
  architectures: { GPT2LMHeadModel: "gpt2" },
  names: {
    embedding: "transformer.wte.weight",
    layers: "transformer.h",
    head: "lm_head",
    mlxLayers: "model.h",
  },
  gguf: "gpt2",
  fanInFanOut: true,
  // The causal mask, and what masked scores become.
  buffers: /\.attn\.(bias|masked_bias)$/,
  ignored: ["n_ctx", "n_special", "predict_special_tokens", "reorder_and_upcast_attn"],
  describe(fields, architecture) {
    fields.require({ add_cross_attention: [false], scale_attn_by_inverse_layer_idx: [false] });
    const { config } = parseDecoderConfig(fields, architecture, {
      grouping: "none",
      tied: true,
      names: {
        hiddenSize: "n_embd",
        intermediateSize: "n_inner",
        layers: "n_layer",
        attentionHeads: "n_head",
        contextLength: "n_positions",
        normEpsilon: "layer_norm_epsilon",
      },
      intermediateSize: 4 * fields.count("n_embd"),
    });
    const norm = (name: string): NormDescription => ({ kind: "layer", name, epsilon: config.normEpsilon });
    const linear = (name: string) => ({ name, bias: true });
    const layer: LayerDescription = {
      attention: {
        projections: { fused: linear("attn.c_attn"), order: "parts" },
        output: linear("attn.c_proj"),
        scale: fields.flag("scale_attn_weights", true) ? config.headDim ** -0.5 : 1,
      },
      mlp: {
        kind: "plain",
        activation: fields.choice("activation_function", ACTIVATIONS, "gelu_new"),
        width: config.intermediateSize,
        up: linear("mlp.c_fc"),
        down: linear("mlp.c_proj"),
      },
      norms: { beforeAttention: norm("ln_1"), beforeMlp: norm("ln_2") },
    };
    return {
      ...config,
      description: {
        positions: { name: "transformer.wpe.weight", rows: config.contextLength },
        layers: everyLayer(config, () => layer),
        finalNorm: norm("transformer.ln_f"),
      },
    };
  },
});
