/**
 * The Granite family (dense Granite 3): Llama with multipliers of embeddings, scores, residuals and logits.
 *
 * @module
 */
import { parseDecoderConfig } from "../config.ts";
import { describedFamily } from "../decoder/record.ts";
import { everyLayer, finalNorm, SILU, USUAL_NAMES, usualLayer, usualNarrowing } from "../decoder/usual.ts";

/** Granite. */
export const granite = describedFamily({
  name: "granite",
  architectures: { GraniteForCausalLM: "granite" },
  names: USUAL_NAMES,
  gguf: "granite",
  narrowing: usualNarrowing({ attention_bias: true, mlp_bias: true }),
  describe(fields, architecture) {
    fields.choice("hidden_act", SILU);
    const { config, rotary } = parseDecoderConfig(fields, architecture, {
      grouping: "none",
      ropeTheta: 10_000,
    });
    const bias = fields.flag("attention_bias");
    const layer = {
      ...usualLayer(config, rotary, {
        ...{ queryBias: bias, outputBias: bias },
        mlpBias: fields.flag("mlp_bias"),
        scale: fields.positive("attention_multiplier", 1),
      }),
      residualScale: fields.positive("residual_multiplier", 1),
    };
    return {
      ...config,
      description: {
        embeddingScale: fields.positive("embedding_multiplier", 1),
        layers: everyLayer(config, () => layer),
        finalNorm: finalNorm(config),
        logitScale: 1 / fields.positive("logits_scaling", 1),
      },
    };
  },
});
