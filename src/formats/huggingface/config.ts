/**
 * config.json of an exported model, in the form that transformers 4 wrote and transformers 5 still reads.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { FloatDtype } from "../dtype.ts";
import { ropeScalingOf } from "./rope_scaling.ts";

const torchDtypes: Readonly<Record<FloatDtype, string>> = {
  f32: "float32",
  f16: "float16",
  bf16: "bfloat16",
};

/** Fields of the newer generation, replaced below, and fields about how the source was saved. */
const dropped = [
  "dtype",
  "layer_types",
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
  const cut: Record<string, unknown> = { ...config, num_hidden_layers: kept.length };
  for (const field of BY_LAYER) {
    const list = config[field];
    if (Array.isArray(list) && list.length === config.num_hidden_layers) {
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
  const kept = Object.entries(config).filter(([key]) => !dropped.includes(key));
  const parameters = config.rope_parameters as Record<string, unknown> | null | undefined;
  const theta = config.rope_theta ?? parameters?.rope_theta;
  return {
    ...Object.fromEntries(kept),
    ...(theta === undefined ? {} : { rope_theta: theta }),
    rope_scaling: exportedScaling(config, parameters, theta, where),
    torch_dtype: torchDtypes[dtype],
  };
}

function exportedScaling(
  config: Readonly<Record<string, unknown>>,
  parameters: Record<string, unknown> | null | undefined,
  theta: unknown,
  where: string,
): unknown {
  let scaling = config.rope_scaling ?? null;
  if (scaling === null && parameters) {
    const { rope_theta: _, ...rest } = parameters;
    scaling = (rest.rope_type ?? "default") === "default" ? null : rest;
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
