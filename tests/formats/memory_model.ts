/** A model of any family that lies on no disk. */
import { type GgufModel, type GgufStorage, writeGgufModel } from "../../src/formats/gguf/export.ts";
import type { ModelSource } from "../../src/formats/model_source.ts";
import type { Architecture } from "../../src/models/architecture.ts";
import { readArchitecture } from "../../src/models/families.ts";
import { randomArray } from "../tensor/harness.ts";
import { TINY_VOCABULARY, tinyTokenizerJson } from "../distill/tiny_model.ts";
import { tinyConfig } from "../models/tiny_configs.ts";

/** Rows of the embedding: some more than there are tokens. */
export const ROWS = TINY_VOCABULARY + 2;

/** What llama.cpp's architectures fix that the tiny configs have otherwise. */
const FIXED: Readonly<Record<string, Record<string, unknown>>> = {
  Qwen3MoeForCausalLM: { mlp_only_layers: [] },
  SmolLM3ForCausalLM: { no_rope_layer_interval: 4, num_hidden_layers: 4 },
};

/** A config of a class that a GGUF file can say. */
export function fittingConfig(
  architecture: string,
  changes: Record<string, unknown> = {},
): Record<string, unknown> {
  return { ...tinyConfig(architecture, ROWS), ...FIXED[architecture], ...changes };
}

/** A model with random values, and its architecture. */
export interface MemoryModel {
  readonly architecture: Architecture;
  readonly values: ReadonlyMap<string, Float32Array<ArrayBuffer>>;
  readonly read: ModelSource["read"];
}

/** A model with random values. */
export function memoryModel(config: Readonly<Record<string, unknown>>, seed = 1): MemoryModel {
  const architecture = readArchitecture(config, "memory");
  const values = new Map(
    [...architecture.tensors].map(([name, shape], i) => {
      const count = shape.reduce((product, size) => product * size, 1);
      const scale = shape.length === 1 ? 0.3 : Math.sqrt(6 / shape[1]!);
      return [name, randomArray(count, seed * 1000 + i, scale) as Float32Array<ArrayBuffer>];
    }),
  );
  return {
    architecture,
    values,
    read: (name) =>
      Promise.resolve({
        dtype: "f32",
        shape: [...architecture.tensors.get(name)!],
        data: values.get(name)!.slice(),
      }),
  };
}

/** A tokenizer that GGUF has names for, of few tokens. */
export function tinyGgufTokenizer() {
  const split = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const tokenizerConfig = { unk_token: "<unk>", add_bos_token: false };
  return { tokenizerJson: { ...tinyTokenizerJson(), pre_tokenizer: split }, tokenizerConfig };
}

/** A model to be written. @param name Its architecture, where that is not the family's */
export function ggufModel({ architecture, read }: MemoryModel, name?: string): GgufModel {
  return {
    name: "tiny",
    architecture: name ?? architecture.family.gguf!,
    config: architecture.config,
    tokenizer: tinyGgufTokenizer(),
    tensors: architecture.tensors,
    read,
  };
}

/** Calls `body` with the GGUF file of a model, and removes it. */
export async function withGguf(
  model: MemoryModel,
  body: (path: string) => Promise<void>,
  storage: GgufStorage = "F32",
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await writeGgufModel(`${folder}/tiny.gguf`, ggufModel(model), storage);
    await body(`${folder}/tiny.gguf`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
