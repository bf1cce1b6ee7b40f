/**
 * Qwen2, Qwen3 and Qwen3-MoE. llama.cpp attends to everything in all of their layers, has experts in every layer of the last, and makes the
 * weights of a token's experts sum to one.
 *
 * @module
 */
import { ofLayers } from "../hyperparameters.ts";
import type { GgufArchitecture } from "./architecture.ts";
import { USUAL_ATTENTION, USUAL_HEAD_NORMS, USUAL_NAMES, USUAL_NORMS } from "./names.ts";
import { headFields, ropeFields, usualConfig, writeRope } from "./usual.ts";

/** Qwen2 and Qwen2.5. */
export const qwen2: GgufArchitecture = {
  name: "qwen2",
  names: USUAL_NAMES,
  wholeWidth: true,
  read: (keys) => ({
    ...usualConfig(keys, { architecture: "Qwen2ForCausalLM", type: "qwen2" }),
    ...ropeFields(keys, headFields(keys).headDim),
  }),
  write: (config, keys) => writeRope(keys, config, { tensor: false }),
};

/** Qwen3. */
export const qwen3: GgufArchitecture = {
  name: "qwen3",
  names: { ...USUAL_NAMES, modules: { ...USUAL_NAMES.modules, ...USUAL_HEAD_NORMS } },
  read: (keys) => ({
    ...usualConfig(keys, { architecture: "Qwen3ForCausalLM", type: "qwen3" }),
    ...ropeFields(keys, headFields(keys).headDim),
  }),
  write: (config, keys) => writeRope(keys, config, { tensor: false }),
};

/** Qwen3-MoE. */
export const qwen3Moe: GgufArchitecture = {
  name: "qwen3moe",
  names: {
    ...USUAL_NAMES,
    modules: {
      ...{ ...USUAL_NORMS, ...USUAL_ATTENTION, ...USUAL_HEAD_NORMS },
      ffn_gate_inp: "mlp.gate",
      ffn_gate_exps: "mlp.experts.*.gate_proj",
      ffn_up_exps: "mlp.experts.*.up_proj",
      ffn_down_exps: "mlp.experts.*.down_proj",
    },
  },
  read: (keys) => ({
    ...usualConfig(keys, { architecture: "Qwen3MoeForCausalLM", type: "qwen3_moe" }),
    ...ropeFields(keys, headFields(keys).headDim),
    num_experts: keys.required("expert_count"),
    num_experts_per_tok: keys.required("expert_used_count"),
    moe_intermediate_size: keys.optional("expert_feed_forward_length") ??
      keys.required("feed_forward_length") / keys.required("expert_used_count"),
    norm_topk_prob: true,
  }),
  write(config, keys) {
    writeRope(keys, config, { tensor: false });
    const mlp = ofLayers(config, ({ mlp }) => mlp.kind === "experts" ? mlp : undefined);
    if (!mlp) return;
    keys.count("expert_count", mlp.count!);
    keys.count("expert_used_count", mlp.perToken!);
    keys.count("expert_feed_forward_length", mlp.width);
  },
};
