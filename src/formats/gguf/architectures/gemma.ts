/**
 * Gemma 2 and Gemma 3.
 *
 * @module
 */
import { type GgufHyperparameters, type GgufRotary, ofLayers } from "../hyperparameters.ts";
import type { GgufArchitecture } from "./architecture.ts";
import { type GgufKeys, type KeyWriter } from "./keys.ts";
import { USUAL_ATTENTION, USUAL_HEAD_NORMS, USUAL_MLP, USUAL_OUTSIDE } from "./names.ts";
import {
  headFields,
  ropeFields,
  rotaryOf,
  sameFrequencies,
  slidingFields,
  usualConfig,
  writeRope,
  writeSliding,
} from "./usual.ts";

const NAMES = {
  outside: USUAL_OUTSIDE,
  layers: "model.layers",
  modules: {
    ...{ ...USUAL_ATTENTION, ...USUAL_MLP },
    attn_norm: "input_layernorm",
    post_attention_norm: "post_attention_layernorm",
    ffn_norm: "pre_feedforward_layernorm",
    post_ffw_norm: "post_feedforward_layernorm",
  },
};

/** `query_pre_attn_scalar`, by how many layers a model has: the largest one's is the width that each head has of the hidden states. */
function scalar(
  largest: number,
  { layers, hiddenSize, heads, headDim }: {
    layers: number;
    hiddenSize: number;
    heads: number;
    headDim: number;
  },
): number {
  return layers === largest ? Math.floor(hiddenSize / heads) : headDim;
}

function common(
  keys: GgufKeys,
  model: { architecture: string; type: string },
  largest: number,
): Record<string, unknown> {
  const heads = headFields(keys);
  const finalCap = keys.decimal("final_logit_softcapping");
  const { hidden_act: _, ...usual } = usualConfig(keys, model);
  return {
    ...{ ...usual, ...ropeFields(keys, heads.headDim) },
    hidden_activation: "gelu_pytorch_tanh",
    query_pre_attn_scalar: scalar(largest, { ...heads, layers: keys.required("block_count") }),
    final_logit_softcapping: finalCap || null,
  };
}

function scaleOf(largest: number) {
  return ({ layers, hiddenSize, attentionHeads, headDim }: GgufHyperparameters) =>
    scalar(largest, { layers, hiddenSize, heads: attentionHeads, headDim }) ** -0.5;
}

function writeFinalCap(keys: KeyWriter, { description }: GgufHyperparameters): void {
  if (description?.logitSoftCap !== undefined) {
    keys.real("final_logit_softcapping", description.logitSoftCap);
  }
}

/** Layers of the largest Gemma 2, and of the largest Gemma 3. */
const [LARGEST_2, LARGEST_3] = [46, 62];
/** Without a pattern in the file, one of so many layers attends everything. */
const [PATTERN_2, PATTERN_3] = [2, 6];

const { "output.weight": _, ...WITHOUT_HEAD } = USUAL_OUTSIDE;

/** Gemma 2, whose head is the embedding in every file. */
export const gemma2: GgufArchitecture = {
  name: "gemma2",
  names: { ...NAMES, outside: WITHOUT_HEAD },
  normsPlusOne: true,
  scale: { of: scaleOf(LARGEST_2), scaled: "attn_q" },
  read: (keys) => ({
    ...common(keys, { architecture: "Gemma2ForCausalLM", type: "gemma2" }, LARGEST_2),
    attn_logit_softcapping: keys.decimal("attn_logit_softcapping") ?? 50,
    final_logit_softcapping: keys.decimal("final_logit_softcapping") ?? 30,
    sliding_window: keys.optional("attention.sliding_window") ?? 4096,
    ...slidingFields(keys, keys.required("block_count"), PATTERN_2),
  }),
  write(config, keys) {
    writeRope(keys, config, { tensor: false });
    const cap = ofLayers(config, ({ attention }) => attention.softCap);
    if (cap !== undefined) keys.real("attn_logit_softcapping", cap);
    writeFinalCap(keys, config);
    const windows = config.description?.layers.map(({ attention }) => attention.window !== undefined) ?? [];
    writeSliding(keys, config, windows, PATTERN_2);
  },
};

/** Gemma 3 for text, of which layers within a window have rotary frequencies of their own, never scaled. */
export const gemma3: GgufArchitecture = {
  name: "gemma3",
  names: { ...NAMES, modules: { ...NAMES.modules, ...USUAL_HEAD_NORMS } },
  normsPlusOne: true,
  // The scale of queries outlives their norm only after it.
  scale: { of: scaleOf(LARGEST_3), scaled: "attn_q_norm" },
  read(keys) {
    const window = keys.optional("attention.sliding_window") ?? 0;
    const layers = keys.required("block_count");
    return {
      ...common(keys, { architecture: "Gemma3ForCausalLM", type: "gemma3_text" }, LARGEST_3),
      sliding_window: window || null,
      rope_local_base_freq: keys.decimal("rope.freq_base_swa") ?? 10_000,
      ...(window > 0 ? slidingFields(keys, layers, PATTERN_3) : {
        layer_types: Array.from({ length: layers }, () => "full_attention"),
      }),
    };
  },
  write(config, keys) {
    writeRope(keys, config, { tensor: false });
    writeFinalCap(keys, config);
    const everywhere = rotaryOf(config);
    const localOf = ({ attention }: { attention: { window?: number; rotary?: { rotary: GgufRotary } } }) => {
      const rotary = attention.rotary?.rotary;
      return rotary && (attention.window !== undefined || !sameFrequencies(rotary, everywhere))
        ? rotary
        : undefined;
    };
    const local = ofLayers(config, localOf);
    if (!local) return;
    keys.real("rope.freq_base_swa", local.theta);
    const slides = config.description!.layers.map((layer) => localOf(layer) !== undefined);
    writeSliding(keys, config, slides, PATTERN_3);
  },
};
