/**
 * StarCoder2 (arXiv 2402.19173), as a family from outside: Mistral's attention within a window, with layer norms and biases, and a plain MLP.
 *
 *   limbeck plugin check examples/families/starcoder2.ts --reference examples/families/starcoder2
 *   limbeck generate --model MODEL --prompt "def " --plugin examples/families/starcoder2.ts
 */
import { CONTRACT_VERSION, decoder, defineFamily } from "@limbeck/limbeck/plugin";

export default defineFamily({
  id: "example/starcoder2",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "layer norms and biases, grouped queries within a window, a plain MLP with gelu",
  source: "arXiv 2402.19173",
  architectures: { Starcoder2ForCausalLM: "starcoder2" },
  names: decoder.USUAL_NAMES,
  layerFields: decoder.layerTypes,
  ignored: ["mlp_type", "norm_type", "use_sliding_window"],
  describe(fields, architecture) {
    fields.require({ mlp_type: ["default"], norm_type: ["layer_norm"] });
    const { config, rotary } = decoder.parseDecoderConfig(fields, architecture, {
      grouping: "required",
      ropeTheta: 10_000,
      tied: true,
      names: { normEpsilon: "norm_epsilon" },
    });
    const bias = fields.flag("use_bias", true);
    const usual = decoder.usualLayer(config, rotary, { queryBias: bias, outputBias: bias, norm: "layer" });
    const layer = {
      ...usual,
      mlp: {
        kind: "plain" as const,
        activation: fields.choice("hidden_act", decoder.ACTIVATIONS, "gelu_pytorch_tanh"),
        width: config.intermediateSize,
        up: { name: "mlp.c_fc", bias },
        down: { name: "mlp.c_proj", bias },
      },
    };
    const window = fields.optional("sliding_window");
    const slides = decoder.slidingLayers(fields, config.layers);
    return {
      ...config,
      description: {
        layers: decoder.everyLayer(
          config,
          (i) => slides?.[i] === false ? layer : decoder.windowed(layer, window, config),
        ),
        finalNorm: decoder.finalNorm(config, "layer"),
      },
    };
  },
});
