/** A model of any family that lies on no disk. */
import type { ModelSource } from "../../src/formats/model_source.ts";
import type { Architecture } from "../../src/models/architecture.ts";
import { readArchitecture } from "../../src/models/families.ts";
import { randomArray } from "../tensor/harness.ts";
import { tinyTokenizerJson } from "../distill/tiny_model.ts";

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
