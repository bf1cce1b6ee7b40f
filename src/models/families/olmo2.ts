/**
 * The OLMo 2 family (arXiv 2501.00656): norms of what attention and MLP give rather than of what they read, and of queries and keys over their full width.
 *
 * @module
 */
import { parseDecoderConfig } from "../config.ts";
import { describedFamily } from "../decoder/record.ts";
import { everyLayer, finalNorm, SILU, USUAL_NAMES, usualLayer } from "../decoder/usual.ts";

/** OLMo 2. */
export const olmo2 = describedFamily({
  name: "olmo2",
  architectures: { Olmo2ForCausalLM: "olmo2" },
  names: USUAL_NAMES,
  gguf: "olmo2",
  describe(fields, architecture) {
    fields.choice("hidden_act", SILU);
    const { config, rotary } = parseDecoderConfig(fields, architecture, {
      grouping: "none",
      ropeTheta: 10_000,
    });
    const bias = fields.flag("attention_bias");
    const layer = usualLayer(config, rotary, {
      ...{ queryBias: bias, outputBias: bias },
      norms: { afterAttention: "post_attention_layernorm", afterMlp: "post_feedforward_layernorm" },
      normsOver: "row",
    });
    return {
      ...config,
      description: { layers: everyLayer(config, () => layer), finalNorm: finalNorm(config) },
    };
  },
});
