/**
 * Models of any size to measure with.
 *
 * @module
 */
import { type FloatDtype, fromFloat32 } from "../src/formats/dtype.ts";
import { writeHuggingFaceFolder } from "../src/formats/huggingface/write.ts";
import { readArchitecture } from "../src/models/families.ts";
import { tinyTokenizerJson } from "../tests/distill/tiny_model.ts";

function configOf(layers: number): Record<string, unknown> {
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_act: "silu",
    hidden_size: 1024,
    intermediate_size: 2816,
    num_hidden_layers: layers,
    num_attention_heads: 16,
    num_key_value_heads: 8,
    vocab_size: 16_000,
    max_position_embeddings: 512,
    rms_norm_eps: 1e-5,
    rope_theta: 10_000,
    tie_word_embeddings: true,
  };
}

/** Writes a model of about so many bytes whose values are noise. */
export async function writeRandomModel(
  path: string,
  bytes: number,
  dtype: FloatDtype,
  seed: number,
): Promise<void> {
  const count = (layers: number) => readArchitecture(configOf(layers), path).parameterCount;
  const values = bytes / (dtype === "f32" ? 4 : 2);
  const layers = Math.max(1, Math.round((values - count(1)) / (count(2) - count(1))) + 1);
  const { tensors } = readArchitecture(configOf(layers), path);
  let state = seed;
  const noise = Float32Array.from({ length: 1 << 20 }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 32 - 0.5) * 0.04;
  });
  await writeHuggingFaceFolder(path, {
    config: configOf(layers),
    tokenizer: { tokenizerJson: tinyTokenizerJson(), tokenizerConfig: {} },
    tensors,
    read(name) {
      const shape = tensors.get(name)!;
      const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
      for (let i = 0; i < data.length; i += noise.length) data.set(noise.subarray(0, data.length - i), i);
      return Promise.resolve({ dtype, shape, data: fromFloat32(dtype, data) });
    },
  }, { dtype });
}
