/**
 * The Qwen3-MoE family (arXiv 2505.09388): Qwen3 with a mixture of experts in place of the MLP, in some layers or all.
 *
 * @module
 */
import { parseDecoderConfig } from "../config.ts";
import type { LayerDescription, MlpDescription } from "../decoder/description.ts";
import { describedFamily } from "../decoder/record.ts";
import { everyLayer, finalNorm, SILU, USUAL_NAMES, usualLayer, windowed } from "../decoder/usual.ts";

/** Qwen3-MoE. */
export const qwen3Moe = describedFamily({
  name: "qwen3_moe",
  architectures: { Qwen3MoeForCausalLM: "qwen3_moe" },
  names: USUAL_NAMES,
  gguf: "qwen3moe",
  layerFields: (layers) => ({
    mlp_only_layers: layers.flatMap(({ mlp }, i) => mlp.kind === "experts" ? [] : [i]),
    decoder_sparse_step: 1,
  }),
  ignored: ["max_window_layers"],
  describe(fields, architecture) {
    fields.choice("hidden_act", SILU);
    const { config, rotary } = parseDecoderConfig(fields, architecture, {
      grouping: "required",
      ropeTheta: 10_000,
    });
    const bias = fields.flag("attention_bias");
    const width = fields.optional("sliding_window", 4096);
    const window = fields.flag("use_sliding_window") ? width : undefined;
    const dense = windowed(
      usualLayer(config, rotary, { queryBias: bias, outputBias: bias, normsOver: "head" }),
      window,
      config,
    );
    // The second is the newer name.
    const count = fields.count(fields.get("num_experts") == null ? "num_local_experts" : "num_experts");
    const mlp: MlpDescription = {
      kind: "experts",
      activation: "silu",
      width: fields.count("moe_intermediate_size"),
      router: "mlp.gate",
      experts: "mlp.experts",
      count,
      perToken: fields.count("num_experts_per_tok"),
      normalised: fields.flag("norm_topk_prob"),
      ...{ gate: "gate_proj", up: "up_proj", down: "down_proj" },
    };
    const sparse: LayerDescription = { ...dense, mlp };
    const step = fields.count("decoder_sparse_step", 1);
    const denseLayers = fields.indices("mlp_only_layers", config.layers);
    return {
      ...config,
      description: {
        layers: everyLayer(
          config,
          (i) => denseLayers.includes(i) || (i + 1) % step !== 0 ? dense : sparse,
        ),
        finalNorm: finalNorm(config),
      },
    };
  },
});
