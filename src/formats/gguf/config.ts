/**
 * GGUF metadata as a Hugging Face config.json.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { type GgufArchitecture, ggufArchitecture } from "./architectures.ts";
import { type GgufHeader, GgufKeys } from "./architectures/keys.ts";
import type { GgufValue } from "./gguf.ts";

/**
 * The architecture of a file.
 *
 * @throws {InputError} for a file that is not a whole model of a known architecture
 */
export function architectureOf(metadata: ReadonlyMap<string, GgufValue>, where: string): GgufArchitecture {
  const architecture = ggufArchitecture(metadata.get("general.architecture"), where);
  const type = metadata.get("general.type") ?? "model";
  if (type !== "model") throw new InputError(`it holds ${JSON.stringify(type)}, not a model`, { where });
  const splits = metadata.get("split.count");
  if (typeof splits === "number" && splits > 1) {
    throw new InputError(`it is one of ${splits} parts of a model`, {
      where,
      hint: "Join them with llama-gguf-split --merge first-part.gguf whole.gguf.",
    });
  }
  return architecture;
}

/**
 * The config of a model.
 *
 * @throws {InputError} naming a key that is missing, of the wrong type, or of unknown meaning
 */
export function ggufConfig(architecture: GgufArchitecture, header: GgufHeader): Record<string, unknown> {
  const keys = new GgufKeys(header, architecture.name);
  const config = architecture.read(keys);
  keys.refuseUnread();
  return config;
}

const BIAS = /^blk\.\d+\.(attn_(q|k|v|output)|ffn_(gate|up|down))\.bias$/;

/**
 * The biases that a config promises and a file may leave out, each of which is then zeros, by the weight that it belongs to.
 *
 * @param config From {@linkcode ggufConfig}
 */
export function optionalBiases(
  { optionalBiases }: GgufArchitecture,
  config: Readonly<Record<string, unknown>>,
  tensors: GgufHeader["tensors"],
): Map<string, string> {
  const found = new Map<string, string>();
  for (const weight of optionalBiases ? tensors.keys() : []) {
    const bias = weight.replace(/\.weight$/, ".bias");
    if (!BIAS.test(bias) || tensors.has(bias)) continue;
    if (config[bias.includes(".attn_") ? "attention_bias" : "mlp_bias"] === true) found.set(bias, weight);
  }
  return found;
}
