/**
 * The Mistral family (Jiang et al., arXiv 2310.06825): Llama without biases, with attention within a sliding window.
 *
 * @module
 */
import { parseDecoderConfig } from "../config.ts";
import { describedFamily } from "../decoder/record.ts";
import {
  everyLayer,
  finalNorm,
  SILU,
  USUAL_NAMES,
  USUAL_PROJECTIONS,
  usualLayer,
  usualWidths,
  windowed,
} from "../decoder/usual.ts";

/** Mistral. */
export const mistral = describedFamily({
  name: "mistral",
  architectures: { MistralForCausalLM: "mistral" },
  names: USUAL_NAMES,
  gguf: "llama",
  // Biases are none whatever the config says, as in transformers.
  ignored: ["attention_bias", "mlp_bias"],
  describe(fields, architecture) {
    fields.choice("hidden_act", SILU);
    // transformers takes 8 heads of keys for a config without their number, which no file relies on.
    const { config, rotary } = parseDecoderConfig(fields, architecture, {
      grouping: "required",
      ropeTheta: 10_000,
    });
    const layer = usualLayer(config, rotary);
    const window = fields.flag("use_sliding_window", true)
      ? fields.optional("sliding_window", 4096)
      : undefined;
    return {
      ...config,
      description: {
        layers: everyLayer(config, () => windowed(layer, window, config)),
        finalNorm: finalNorm(config),
      },
    };
  },
  narrowing: {
    projections: USUAL_PROJECTIONS,
    // There is no place for biases: with them it becomes a Llama, which computes the same where the window is none.
    config: (config, widths) => {
      const { sliding_window: _, use_sliding_window: __, ...windowless } = config;
      return {
        ...(widths.biases ? { ...windowless, ...LLAMA_WITH_BIASES } : config),
        ...usualWidths(widths),
      };
    },
  },
});

const LLAMA_WITH_BIASES = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  attention_bias: true,
  mlp_bias: true,
};
