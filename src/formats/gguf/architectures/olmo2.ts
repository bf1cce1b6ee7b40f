/**
 * OLMo 2.
 *
 * @module
 */
import type { GgufArchitecture } from "./architecture.ts";
import { USUAL_ATTENTION, USUAL_HEAD_NORMS, USUAL_MLP, USUAL_OUTSIDE } from "./names.ts";
import { headFields, ropeFields, usualConfig, writeRope } from "./usual.ts";

/** OLMo 2: norms of what attention and MLP give. */
export const olmo2: GgufArchitecture = {
  name: "olmo2",
  names: {
    outside: USUAL_OUTSIDE,
    layers: "model.layers",
    modules: {
      ...{ ...USUAL_ATTENTION, ...USUAL_HEAD_NORMS, ...USUAL_MLP },
      post_attention_norm: "post_attention_layernorm",
      post_ffw_norm: "post_feedforward_layernorm",
    },
  },
  wholeWidth: true,
  ownHead: true,
  read: (keys) => ({
    ...usualConfig(keys, { architecture: "Olmo2ForCausalLM", type: "olmo2" }),
    ...ropeFields(keys, headFields(keys).headDim),
  }),
  write: (config, keys) => writeRope(keys, config, { tensor: false }),
};
