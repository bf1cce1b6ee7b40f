/**
 * Phi-3 (and 3.5, 4, 4-mini).
 *
 * @module
 */
import { type GgufHyperparameters, ofLayers } from "../hyperparameters.ts";
import type { GgufArchitecture } from "./architecture.ts";
import { type GgufKeys, shortestDecimal } from "./keys.ts";
import { USUAL_NORMS, USUAL_OUTSIDE } from "./names.ts";
import {
  frequencyFactors,
  headFields,
  ropeScaling,
  ropeTheta,
  rotaryOf,
  rotaryPart,
  usualConfig,
  writeRope,
} from "./usual.ts";

/** What LongRoPE divides the frequencies of short and of long sequences by. */
const [SHORT, LONG] = ["rope_factors_short.weight", "rope_factors_long.weight"] as const;

function longRope(keys: GgufKeys): Record<string, unknown> | undefined {
  const [short, long] = [SHORT, LONG].map((name) => keys.header.rope.get(name)?.map(shortestDecimal));
  if (!short && !long) return undefined;
  const factor = keys.decimal("rope.scaling.attn_factor");
  return {
    rope_type: "longrope",
    short_factor: short,
    long_factor: long,
    ...(factor ? { attention_factor: factor } : {}),
  };
}

/** Phi-3: one tensor for queries, keys and values, one for gate and up. */
export const phi3: GgufArchitecture = {
  name: "phi3",
  names: {
    outside: USUAL_OUTSIDE,
    layers: "model.layers",
    modules: {
      ...USUAL_NORMS,
      attn_qkv: "self_attn.qkv_proj",
      attn_output: "self_attn.o_proj",
      ffn_up: "mlp.gate_up_proj",
      ffn_down: "mlp.down_proj",
    },
  },
  wholeWidth: true,
  windowUnheeded: true,
  read(keys) {
    const { headDim } = headFields(keys);
    const scaling = longRope(keys);
    // Of LongRoPE the type says nothing that the factors do not.
    const other = ropeScaling(keys);
    const original = keys.optional("rope.scaling.original_context_length");
    return {
      ...usualConfig(keys, { architecture: "Phi3ForCausalLM", type: "phi3" }),
      rope_theta: ropeTheta(keys),
      rope_scaling: scaling ?? other,
      partial_rotary_factor: rotaryPart(keys, headDim),
      original_max_position_embeddings: original ?? keys.required("context_length"),
      sliding_window: keys.optional("attention.sliding_window") || null,
    };
  },
  write(config, keys) {
    const { long, attentionScaling } = rotaryOf(config);
    writeRope(keys, config, { tensor: long !== undefined });
    keys.count("rope.scaling.original_context_length", long?.beyond ?? config.contextLength);
    if (long) {
      keys.text("rope.scaling.type", "longrope");
      keys.real("rope.scaling.attn_factor", attentionScaling);
    }
    // Zero tells llama.cpp that there is none.
    keys.count("attention.sliding_window", ofLayers(config, ({ attention }) => attention.window) ?? 0);
  },
  tables(config: GgufHyperparameters) {
    const rotary = rotaryOf(config);
    if (!rotary.long) return new Map();
    return new Map([
      [LONG, frequencyFactors(rotary, rotary.long.inverseFrequencies)],
      [SHORT, frequencyFactors(rotary, rotary.inverseFrequencies)],
    ]);
  },
};

/** Tensors about rotary positions that {@linkcode phi3} has. */
export const LONG_ROPE_TENSORS: readonly string[] = [SHORT, LONG];
