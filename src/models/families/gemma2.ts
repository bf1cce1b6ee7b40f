/**
 * The Gemma 2 family (arXiv 2408.00118): norms before and after attention and MLP, each times one more than its weight, soft caps, every other
 * layer within a window.
 *
 * @module
 */
import { parseDecoderConfig } from "../config.ts";
import { describedFamily } from "../decoder/record.ts";
import {
  ACTIVATIONS,
  everyLayer,
  finalNorm,
  layerTypes,
  SANDWICH_NORMS,
  slidingLayers,
  USUAL_NAMES,
  usualLayer,
  usualNarrowing,
  windowed,
} from "../decoder/usual.ts";

/** Gemma 2. */
export const gemma2 = describedFamily({
  name: "gemma2",
  architectures: { Gemma2ForCausalLM: "gemma2" },
  names: USUAL_NAMES,
  gguf: "gemma2",
  layerFields: layerTypes,
  // The activation of Gemma 1, and the window's first name beside its own; transformers looks at neither.
  ignored: ["hidden_act", "sliding_window_size", "cache_implementation"],
  narrowing: usualNarrowing(undefined),
  describe(fields, architecture) {
    fields.require({ use_bidirectional_attention: [null, false] });
    const { config, rotary } = parseDecoderConfig(fields, architecture, {
      grouping: "required",
      ropeTheta: 10_000,
      headDim: 256,
      tied: true,
    });
    const bias = fields.flag("attention_bias");
    const usual = usualLayer(config, rotary, {
      ...{ queryBias: bias, outputBias: bias, norm: "rms + 1", norms: SANDWICH_NORMS },
      activation: fields.choice("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh"),
      scale: fields.positive("query_pre_attn_scalar", 256) ** -0.5,
    });
    const softCap = fields.optional("attn_logit_softcapping", 50);
    const layer = {
      ...usual,
      attention: { ...usual.attention, ...(softCap === undefined ? {} : { softCap }) },
    };
    const window = fields.optional("sliding_window", 4096);
    const slides = slidingLayers(fields, config.layers) ?? everyLayer(config, (i) => i % 2 === 0);
    const logitSoftCap = fields.optional("final_logit_softcapping", 30);
    return {
      ...config,
      description: {
        embeddingScale: config.hiddenSize ** 0.5,
        layers: everyLayer(config, (i) => windowed(layer, slides[i] ? window : undefined, config)),
        finalNorm: finalNorm(config, "rms + 1"),
        ...(logitSoftCap === undefined ? {} : { logitSoftCap }),
      },
    };
  },
});
