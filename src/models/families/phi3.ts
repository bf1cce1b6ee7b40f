/**
 * The Phi-3 family (arXiv 2404.14219; Phi-3.5, Phi-4 and Phi-4-mini too): Llama with one linear layer for queries, keys and values, and one
 * for gate and up; rotary positions of a part of each head in some, stretched by LongRoPE in others.
 *
 * @module
 */
import { parseDecoderConfig } from "../config.ts";
import { describedFamily } from "../decoder/record.ts";
import { everyLayer, finalNorm, SILU, USUAL_NAMES, usualLayer, windowed } from "../decoder/usual.ts";

/** Phi-3. */
export const phi3 = describedFamily({
  name: "phi3",
  architectures: { Phi3ForCausalLM: "phi3" },
  names: USUAL_NAMES,
  gguf: "phi3",
  // Biases are none whatever the config says, as in transformers.
  ignored: ["attention_bias", "mlp_bias", "lm_head_bias", "interpolate_factor", "full_attn_mod"],
  describe(fields, architecture) {
    fields.choice("hidden_act", SILU);
    const { config, rotary } = parseDecoderConfig(fields, architecture, {
      grouping: "none",
      ropeTheta: 10_000,
      partialRotary: 1,
      rope: { original_max_position_embeddings: 4096, ...fields.config },
    });
    const usual = usualLayer(config, rotary);
    const down = { name: "mlp.down_proj", bias: false };
    const layer = windowed(
      {
        ...usual,
        attention: {
          ...usual.attention,
          projections: { fused: { name: "self_attn.qkv_proj", bias: false }, order: "parts" },
        },
        mlp: {
          kind: "fused",
          activation: "silu",
          width: config.intermediateSize,
          gateUp: { name: "mlp.gate_up_proj", bias: false },
          down,
        },
      },
      fields.optional("sliding_window"),
      config,
    );
    return {
      ...config,
      description: { layers: everyLayer(config, () => layer), finalNorm: finalNorm(config) },
    };
  },
});
