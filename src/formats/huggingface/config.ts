/**
 * config.json of an exported model, in the form that transformers 4 wrote and transformers 5 still reads.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { asObject } from "../../base/json.ts";
import type { FloatDtype } from "../dtype.ts";
import { layoutOf } from "./layout.ts";
import { ropeScalingOf } from "./rope_scaling.ts";

const torchDtypes: Readonly<Record<FloatDtype, string>> = {
  f32: "float32",
  f16: "float16",
  bf16: "bfloat16",
};

/** Fields of the newer generation, replaced below, and fields about how the source was saved. */
const dropped = [
  "dtype",
  "quantization_config",
  "rope_frequency_factors",
  "rope_parameters",
  "transformers_version",
  "_name_or_path",
];

/** Fields with an entry for each layer. */
const BY_LAYER = ["layer_types", "mlp_layer_types", "no_rope_layers"];

/**
 * The config of a model of which some layers are kept.
 *
 * @param kept Layers of the config's model, rising; they are renumbered from 0
 */
export function configOfLayers(
  config: Readonly<Record<string, unknown>>,
  kept: readonly number[],
): Record<string, unknown> {
  const { layers } = layoutOf(config);
  const cut: Record<string, unknown> = { ...config, [layers]: kept.length };
  for (const field of BY_LAYER) {
    const list = config[field];
    if (Array.isArray(list) && list.length === config[layers]) {
      cut[field] = kept.map((layer) => list[layer]);
    }
  }
  return cut;
}

/**
 * The config of a model saved in `dtype`.
 *
 * @param config Of either generation, or made from GGUF metadata.
 * @throws {InputError} when rotary divisors from a GGUF file follow from no scaling that config.json can name.
 */
export function exportedConfig(
  config: Readonly<Record<string, unknown>>,
  dtype: FloatDtype,
  where: string,
): Record<string, unknown> {
  const kept = Object.entries(config).filter(([key, value]) =>
    !dropped.includes(key) && !(key === "layer_types" && config.sliding_window == null && isUniform(value))
  );
  const parameters = asObject(config.rope_parameters);
  const { rope } = layoutOf(config);
  // Gemma 3 has a rope for each of two kinds of layers.
  const [full, local] = [asObject(parameters?.full_attention), asObject(parameters?.sliding_attention)];
  return {
    ...Object.fromEntries(kept),
    ...(rope ? exportedRope(config, full ?? parameters, rope, where) : {}),
    ...(local?.rope_theta === undefined ? {} : { rope_local_base_freq: local.rope_theta }),
    torch_dtype: torchDtypes[dtype],
  };
}

/** Whether every layer attends everything, which older readers take for granted where there is no window. */
function isUniform(layerTypes: unknown): boolean {
  return !Array.isArray(layerTypes) || layerTypes.every((type) => type === "full_attention");
}

function exportedRope(
  config: Readonly<Record<string, unknown>>,
  parameters: Readonly<Record<string, unknown>> | undefined,
  names: { theta: string; partial: string },
  where: string,
): Record<string, unknown> {
  const theta = config[names.theta] ?? config.rope_theta ?? parameters?.rope_theta;
  const partial = config[names.partial] ?? config.partial_rotary_factor ?? parameters?.partial_rotary_factor;
  return {
    ...(theta === undefined ? {} : { [names.theta]: theta }),
    ...(partial === undefined || partial === 1 ? {} : { [names.partial]: partial }),
    rope_scaling: exportedScaling(config, parameters, theta, where),
  };
}

/** Older readers of LongRoPE want no other fields than these, and find the context in the config itself. */
function olderScaling(
  { rope_type, ...scaling }: Record<string, unknown>,
  { original_max_position_embeddings: original }: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  if (rope_type !== "longrope") return { rope_type, ...scaling };
  const { original_max_position_embeddings: own, ...rest } = scaling;
  return { type: rope_type, ...rest, ...(original == null ? { original_max_position_embeddings: own } : {}) };
}

function exportedScaling(
  config: Readonly<Record<string, unknown>>,
  parameters: Readonly<Record<string, unknown>> | undefined,
  theta: unknown,
  where: string,
): unknown {
  let scaling = config.rope_scaling ?? null;
  if (scaling === null && parameters) {
    const { rope_theta: _, partial_rotary_factor: __, ...rest } = parameters;
    scaling = (rest.rope_type ?? "default") === "default" ? null : olderScaling(rest, config);
  }
  const factors = config.rope_frequency_factors;
  if (!Array.isArray(factors)) return scaling;
  const found = ropeScalingOf(factors, Number(theta));
  if (found === null) return scaling;
  if (found !== undefined && scaling === null) return found;
  throw new InputError("the rotary frequencies follow from no scaling that config.json can describe", {
    where,
    hint: "Export a GGUF file instead.",
  });
}
