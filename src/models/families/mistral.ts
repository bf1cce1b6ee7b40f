/**
 * The Mistral family (Jiang et al., arXiv 2310.06825): Llama without biases, with attention within a sliding window.
 *
 * @module
 */
import { parseDecoderConfig } from "../config.ts";
import type { DescribedConfig } from "../decoder/description.ts";
import { describedFamily } from "../decoder/record.ts";
import {
  everyLayer,
  finalNorm,
  narrowedAsLlama,
  SILU,
  USUAL_NAMES,
  usualLayer,
  windowed,
} from "../decoder/usual.ts";
import type { ModelFamily } from "../family.ts";

/** Mistral. */
export const mistral: ModelFamily<DescribedConfig> = describedFamily({
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
    const width = fields.optional("sliding_window", 4096);
    const window = fields.flag("use_sliding_window", true) ? width : undefined;
    return {
      ...config,
      description: {
        layers: everyLayer(config, () => windowed(layer, window, config)),
        finalNorm: finalNorm(config),
      },
    };
  },
  narrowing: narrowedAsLlama((config): DescribedConfig =>
    mistral.parse(config, "MistralForCausalLM", "config.json")
  ),
});
