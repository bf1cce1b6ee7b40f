/**
 * A LoRA adapter as a GGUF file that llama.cpp puts on a model at load time (`llama-cli --lora`).
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { type GgufArchitecture, ggufArchitecture } from "./architectures.ts";
import { type GgufName, ggufName } from "./architectures/names.ts";
import type { GgufHyperparameters } from "./hyperparameters.ts";
import { scaleOf, storedOrder } from "./stored_values.ts";
import { type GgufSpec, type GgufWriteValue, writeGguf } from "./write.ts";
import type { UniformLora, UniformLoraLayer } from "../peft/uniform_lora.ts";

/** An adapter to be written. */
export interface GgufAdapter {
  /** `general.name`. */
  readonly name: string;
  /** More of `general.*`, such as license, author, url, description. */
  readonly about?: Readonly<Record<string, string>>;
  readonly lora: UniformLora;
  /** `general.architecture` of the model that it is for. */
  readonly architecture: string;
  readonly config: GgufHyperparameters;
}

/**
 * Writes an adapter in f32, as llama.cpp's convert_lora_to_gguf.py does: `lora_a` [rank, in] and `lora_b` [out, rank] after the name
 * of the weight. llama.cpp multiplies their product by `adapter.lora.alpha` / rank. Those of experts are stacks, as their weights are, with
 * the expert first.
 *
 * @throws {InputError} for DoRA, or a layer that GGUF has no name for
 */
export async function writeGgufAdapter(path: string, adapter: GgufAdapter): Promise<void> {
  const { lora, config } = adapter;
  const architecture = ggufArchitecture(adapter.architecture, path);
  const sources = new Map<string, () => Float32Array>();
  const specs = lora.layers.flatMap((layer): GgufSpec[] => {
    const found = ggufName(architecture.names, `${layer.path}.weight`);
    const { experts } = layer;
    if (found === undefined || (found.expert !== undefined) !== (experts !== undefined) || layer.magnitude) {
      throw new InputError(
        layer.magnitude
          ? "llama.cpp knows no DoRA: the magnitudes have no place in a GGUF file"
          : `the layer ${layer.path} has no name in a GGUF file of the architecture ${architecture.name}`,
        { where: path },
      );
    }
    const weight = found.name;
    sources.set(`${weight}.lora_a`, () => layer.a);
    sources.set(`${weight}.lora_b`, () => storedFactor(architecture, config, found, layer));
    const stack = experts === undefined ? [] : [experts];
    return [
      { name: `${weight}.lora_a`, type: "F32", shape: [...stack, lora.rank, layer.inFeatures] },
      { name: `${weight}.lora_b`, type: "F32", shape: [...stack, layer.outFeatures, lora.rank] },
    ];
  });
  await writeGguf(path, metadataOf(adapter), specs, ({ name }) => Promise.resolve(sources.get(name)!()));
}

/** Rows of B are rows of the weight, so they move with them, and are scaled as they are. */
function storedFactor(
  architecture: GgufArchitecture,
  config: GgufHyperparameters,
  { module }: GgufName,
  { outFeatures, b, experts }: UniformLoraLayer,
): Float32Array {
  // No architecture stores rows of experts in another order.
  if (module === undefined || experts !== undefined) return b;
  const scale = scaleOf(architecture, config, module);
  const values = scale === 1 ? b : b.map((value) => value * scale);
  return storedOrder(architecture, config, module, outFeatures, values as Float32Array<ArrayBuffer>);
}

function metadataOf({ name, architecture, about = {}, lora }: GgufAdapter): Map<string, GgufWriteValue> {
  const text = (key: string, value: string) => [key, { type: "string", value }] as const;
  return new Map<string, GgufWriteValue>([
    text("general.architecture", architecture),
    text("general.type", "adapter"),
    text("adapter.type", "lora"),
    text("general.name", name),
    ...Object.entries(about).map(([key, value]) => text(`general.${key}`, value)),
    ["adapter.lora.alpha", { type: "f32", value: lora.scale * lora.rank }],
    ["general.quantization_version", { type: "u32", value: 2 }],
  ]);
}
