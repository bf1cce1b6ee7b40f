/**
 * Llama and architectures that rotate neighbours, as it does in llama.cpp: Granite and SmolLM3.
 *
 * @module
 */
import { ofLayers } from "../hyperparameters.ts";
import type { GgufArchitecture } from "./architecture.ts";
import type { GgufKeys } from "./keys.ts";
import { USUAL_NAMES } from "./names.ts";
import { headFields, ropeFactorTables, ropeFields, usualConfig, writeRope } from "./usual.ts";

const ATTENTION_BIAS = /^blk\.\d+\.attn_(q|k|v|output)\.bias$/;
const MLP_BIAS = /^blk\.\d+\.ffn_(gate|up|down)\.bias$/;

/** Rows of queries and keys are those that Llama's first files had. */
const NEIGHBOURS = { attn_q: "neighbours", attn_k: "neighbours" } as const;

function biases(keys: GgufKeys): Record<string, boolean> {
  return { attention_bias: keys.has(ATTENTION_BIAS), mlp_bias: keys.has(MLP_BIAS) };
}

/** Llama, Mistral, and what computes as they do. */
export const llama: GgufArchitecture = {
  name: "llama",
  names: USUAL_NAMES,
  rows: NEIGHBOURS,
  ropeFactors: true,
  optionalBiases: true,
  windowUnheeded: true,
  read(keys) {
    const window = keys.optional("attention.sliding_window") ?? 0;
    const slides = window > 0 && window < keys.required("context_length");
    const own = biases(keys);
    if (slides && (own.attention_bias || own.mlp_bias)) {
      throw keys.wrong(
        "attention.sliding_window",
        `is ${window}, which is not supported for a model with biases`,
      );
    }
    return {
      ...usualConfig(
        keys,
        slides
          ? { architecture: "MistralForCausalLM", type: "mistral" }
          : { architecture: "LlamaForCausalLM", type: "llama" },
      ),
      ...ropeFields(keys, headFields(keys).headDim),
      ...(slides ? { sliding_window: window } : own),
    };
  },
  write(config, keys) {
    const window = ofLayers(config, ({ attention }) => attention.window);
    if (window !== undefined) keys.count("attention.sliding_window", window);
    writeRope(keys, config, { tensor: true });
  },
  tables: ropeFactorTables,
};

/** Granite, whose multipliers are called scales. */
export const granite: GgufArchitecture = {
  name: "granite",
  names: USUAL_NAMES,
  rows: NEIGHBOURS,
  ropeFactors: true,
  optionalBiases: true,
  read(keys) {
    const { headDim } = headFields(keys);
    const some = (key: string) => keys.decimal(key) || undefined;
    // The key that elsewhere says that frequencies were trained on turns positions off in this architecture.
    if (keys.flag("rope.scaling.finetuned") === false) {
      throw keys.wrong("rope.scaling.finetuned", "is false, and layers without positions are not supported");
    }
    return {
      ...usualConfig(keys, { architecture: "GraniteForCausalLM", type: "granite" }),
      ...ropeFields(keys, headDim),
      ...biases(keys),
      attention_multiplier: some("attention.scale") ?? headDim ** -0.5,
      embedding_multiplier: some("embedding_scale") ?? 1,
      residual_multiplier: some("residual_scale") ?? 1,
      logits_scaling: some("logit_scale") ?? keys.required("logit_scale"),
    };
  },
  write(config, keys) {
    writeRope(keys, config, { tensor: true });
    const { embeddingScale = 1, logitScale = 1 } = config.description ?? {};
    keys.real("attention.scale", ofLayers(config, ({ attention }) => attention.scale) ?? 1);
    keys.real("embedding_scale", embeddingScale);
    keys.real("residual_scale", ofLayers(config, ({ residualScale }) => residualScale) ?? 1);
    keys.real("logit_scale", 1 / logitScale);
  },
  tables: ropeFactorTables,
};

/** SmolLM3, of which llama.cpp leaves every fourth layer without rotary positions. */
export const smollm3: GgufArchitecture = {
  name: "smollm3",
  names: USUAL_NAMES,
  rows: NEIGHBOURS,
  read: (keys) => ({
    ...usualConfig(keys, { architecture: "SmolLM3ForCausalLM", type: "smollm3" }),
    ...ropeFields(keys, headFields(keys).headDim),
    no_rope_layer_interval: 4,
  }),
  write: (config, keys) => writeRope(keys, config, { tensor: false }),
};
