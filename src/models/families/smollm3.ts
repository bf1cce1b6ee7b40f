/**
 * The SmolLM3 family: Llama of which some layers do not rotate positions (NoPE; Yang et al., arXiv 2501.18795).
 *
 * @module
 */
import { parseDecoderConfig } from "../config.ts";
import { describedFamily } from "../decoder/record.ts";
import {
  everyLayer,
  finalNorm,
  layerTypes,
  SILU,
  slidingLayers,
  USUAL_NAMES,
  usualLayer,
  usualNarrowing,
  windowed,
} from "../decoder/usual.ts";

/** SmolLM3. */
export const smollm3 = describedFamily({
  name: "smollm3",
  architectures: { SmolLM3ForCausalLM: "smollm3" },
  names: USUAL_NAMES,
  gguf: "smollm3",
  layerFields: (layers) => ({
    ...layerTypes(layers),
    no_rope_layers: layers.map(({ attention }) => Number(attention.rotary !== undefined)),
  }),
  narrowing: usualNarrowing({ attention_bias: true, mlp_bias: true }),
  ignored: ["max_window_layers", "pretraining_tp"],
  describe(fields, architecture) {
    fields.choice("hidden_act", SILU);
    const { config, rotary } = parseDecoderConfig(fields, architecture, {
      grouping: "none",
      ropeTheta: 2_000_000,
      tied: true,
    });
    const bias = fields.flag("attention_bias");
    const options = { queryBias: bias, outputBias: bias, mlpBias: fields.flag("mlp_bias") };
    const interval = fields.count("no_rope_layer_interval", 4);
    // 1 stands for a layer that rotates.
    const rotates = fields.byLayer(
      "no_rope_layers",
      config.layers,
      (entry) => entry === 1 ? true : entry === 0 ? false : undefined,
      "1 (rotary positions) or 0 (none)",
    ) ?? everyLayer(config, (i) => (i + 1) % interval !== 0);
    const width = fields.optional("sliding_window");
    const window = fields.flag("use_sliding_window") ? width : undefined;
    const slides = slidingLayers(fields, config.layers) ?? rotates.map((rotates) => !rotates);
    const layers = everyLayer(config, (i) =>
      windowed(
        usualLayer(config, rotates[i] ? rotary : undefined, options),
        slides[i] ? window : undefined,
        config,
      ));
    return { ...config, description: { layers, finalNorm: finalNorm(config) } };
  },
});
