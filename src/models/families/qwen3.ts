/**
 * The Qwen3 family (arXiv 2505.09388): Llama with norms of each head of queries and keys.
 *
 * @module
 */
import { parseDecoderConfig } from "../config.ts";
import { describedFamily } from "../decoder/record.ts";
import {
  everyLayer,
  finalNorm,
  layerTypes,
  qwenWindows,
  SILU,
  USUAL_NAMES,
  usualLayer,
  usualNarrowing,
} from "../decoder/usual.ts";

/** Qwen3. */
export const qwen3 = describedFamily({
  name: "qwen3",
  architectures: { Qwen3ForCausalLM: "qwen3" },
  names: USUAL_NAMES,
  gguf: "qwen3",
  layerFields: layerTypes,
  narrowing: usualNarrowing(undefined),
  describe(fields, architecture) {
    fields.choice("hidden_act", SILU);
    const { config, rotary } = parseDecoderConfig(fields, architecture, {
      grouping: "required",
      ropeTheta: 10_000,
      headDim: 128,
    });
    const bias = fields.flag("attention_bias");
    const layer = usualLayer(config, rotary, { queryBias: bias, outputBias: bias, normsOver: "head" });
    const windowed = qwenWindows(fields, config);
    return {
      ...config,
      description: { layers: everyLayer(config, (i) => windowed(layer, i)), finalNorm: finalNorm(config) },
    };
  },
});
