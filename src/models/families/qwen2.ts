/**
 * The Qwen2 and Qwen2.5 families (arXiv 2407.10671): Llama with biases of queries, keys and values, and of nothing else.
 *
 * @module
 */
import { parseDecoderConfig } from "../config.ts";
import type { DescribedConfig } from "../decoder/description.ts";
import { describedFamily } from "../decoder/record.ts";
import {
  everyLayer,
  finalNorm,
  layerTypes,
  narrowedAsLlama,
  qwenWindows,
  SILU,
  USUAL_NAMES,
  usualLayer,
} from "../decoder/usual.ts";
import type { ModelFamily } from "../family.ts";

/** Qwen2 and Qwen2.5. */
export const qwen2: ModelFamily<DescribedConfig> = describedFamily({
  name: "qwen2",
  architectures: { Qwen2ForCausalLM: "qwen2" },
  names: USUAL_NAMES,
  gguf: "qwen2",
  layerFields: layerTypes,
  narrowing: narrowedAsLlama((config): DescribedConfig =>
    qwen2.parse(config, "Qwen2ForCausalLM", "config.json")
  ),
  describe(fields, architecture) {
    fields.choice("hidden_act", SILU);
    const { config, rotary } = parseDecoderConfig(fields, architecture, {
      grouping: "required",
      ropeTheta: 10_000,
    });
    const layer = usualLayer(config, rotary, { queryBias: true });
    const windowed = qwenWindows(fields, config);
    return {
      ...config,
      description: { layers: everyLayer(config, (i) => windowed(layer, i)), finalNorm: finalNorm(config) },
    };
  },
});
