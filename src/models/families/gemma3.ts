/**
 * The Gemma 3 family for text (arXiv 2503.19786): Gemma 2 without soft caps, with norms of each head of queries and keys, and rotary positions
 * of their own in layers within a window.
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
  rotaryTableName,
  rotaryTableOf,
  SANDWICH_NORMS,
  slidingLayers,
  USUAL_NAMES,
  usualLayer,
  usualNarrowing,
  windowed,
} from "../decoder/usual.ts";
import { asObject } from "../../base/json.ts";
import { parseRope } from "../rope.ts";

/** What the rotary table of layers within a window is called. */
const LOCAL = "local";

/** Gemma 3 for text. */
export const gemma3 = describedFamily({
  name: "gemma3",
  architectures: { Gemma3ForCausalLM: "gemma3_text" },
  names: USUAL_NAMES,
  gguf: "gemma3",
  layerFields: (layers) =>
    layerTypes(layers, ({ attention }) => attention.rotary?.name === rotaryTableName(LOCAL)),
  // transformers has the cap of scores in its configs and computes without one; norms of queries and keys stand in its place.
  ignored: ["hidden_act", "attn_logit_softcapping", "cache_implementation"],
  narrowing: usualNarrowing(undefined),
  describe(fields, architecture) {
    fields.require({ use_bidirectional_attention: [null, false] });
    // Both generations: `rope_parameters` by layer type, or the global rope beside `rope_local_base_freq`.
    const newer = asObject(fields.get("rope_parameters")) ?? {};
    const { config, rotary } = parseDecoderConfig(fields, architecture, {
      grouping: "required",
      ropeTheta: 1_000_000,
      rope: { ...fields.config, rope_parameters: newer.full_attention },
      headDim: 256,
      tied: true,
    });
    const localTheta = fields.get("rope_local_base_freq");
    const local = parseRope(
      { rope_theta: localTheta, rope_parameters: newer.sliding_attention },
      { ...config, theta: 10_000 },
      fields.where,
    );
    const bias = fields.flag("attention_bias");
    const layer = usualLayer(config, rotary, {
      ...{ queryBias: bias, outputBias: bias, norm: "rms + 1", norms: SANDWICH_NORMS, normsOver: "head" },
      activation: fields.choice("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh"),
      scale: fields.positive("query_pre_attn_scalar", 256) ** -0.5,
    });
    const window = fields.optional("sliding_window", 4096);
    const sliding = { ...layer, attention: { ...layer.attention, rotary: rotaryTableOf(local, LOCAL) } };
    const pattern = fields.count("sliding_window_pattern", 6);
    const slides = slidingLayers(fields, config.layers) ?? everyLayer(config, (i) => (i + 1) % pattern !== 0);
    const logitSoftCap = fields.optional("final_logit_softcapping");
    return {
      ...config,
      description: {
        embeddingScale: config.hiddenSize ** 0.5,
        layers: everyLayer(config, (i) => slides[i] ? windowed(sliding, window, config) : layer),
        finalNorm: finalNorm(config, "rms + 1"),
        ...(logitSoftCap === undefined ? {} : { logitSoftCap }),
      },
    };
  },
});
