/**
 * The Llama family (Touvron et al., arXiv 2302.13971): RMS norm before attention and MLP, rotary positions, grouped-query attention,
 * gated SiLU. SmolLM and MiniMind are the same computation with other numbers; MAP-Neo has heads wider than the width divided by them.
 *
 * @module
 */
import { parseDecoderConfig } from "../config.ts";
import { describedFamily } from "../decoder/record.ts";
import { everyLayer, finalNorm, SILU, USUAL_NAMES, usualLayer, usualNarrowing } from "../decoder/usual.ts";

/** Llama, and what computes as it does. */
export const llama = describedFamily({
  name: "llama",
  architectures: { LlamaForCausalLM: "llama" },
  names: USUAL_NAMES,
  gguf: "llama",
  ignored: ["pretraining_tp"],
  describe(fields, architecture) {
    fields.choice("hidden_act", SILU);
    const { config, rotary } = parseDecoderConfig(fields, architecture, {
      grouping: "none",
      ropeTheta: 10_000,
    });
    const bias = fields.flag("attention_bias");
    const layer = usualLayer(config, rotary, {
      ...{ queryBias: bias, outputBias: bias },
      mlpBias: fields.flag("mlp_bias"),
    });
    return {
      ...config,
      description: { layers: everyLayer(config, () => layer), finalNorm: finalNorm(config) },
    };
  },
  narrowing: usualNarrowing({ attention_bias: true, mlp_bias: true }),
});
