/**
 * Models of which only the shapes matter: folders whose weights are a hole in a file, so that a program can be planned for a model of any
 * size in no time and on no disk.
 *
 * @module
 */
import { join } from "@std/path";
import { planSafetensors } from "../src/formats/safetensors/write.ts";
import { readArchitecture } from "../src/models/families.ts";
import { tinyTokenizerJson } from "../tests/distill/tiny_model.ts";

/** What a model's config.json says of its shape, beside what all here share. */
export type Shape = Readonly<Record<string, unknown>> & {
  readonly hidden_size: number;
  readonly num_hidden_layers: number;
};

const qwen = { max_position_embeddings: 32_768, rms_norm_eps: 1e-6, rope_theta: 1e6, vocab_size: 151_936 };
const stories = { model_type: "llama", rms_norm_eps: 1e-5, rope_theta: 10_000 };

/** Shapes of models in use, and of the small ones that the other benches measure. */
export const SHAPES = {
  "stories260K": {
    ...stories,
    ...{ hidden_size: 64, intermediate_size: 172, num_hidden_layers: 5, vocab_size: 512 },
    ...{ num_attention_heads: 8, num_key_value_heads: 4, max_position_embeddings: 512 },
  },
  "stories15M": {
    ...stories,
    ...{ hidden_size: 288, intermediate_size: 768, num_hidden_layers: 6, vocab_size: 32_000 },
    ...{ num_attention_heads: 6, num_key_value_heads: 6, max_position_embeddings: 256 },
  },
  "0.5B": {
    ...qwen,
    ...{ model_type: "qwen2", hidden_size: 896, intermediate_size: 4864, num_hidden_layers: 24 },
    ...{ num_attention_heads: 14, num_key_value_heads: 2 },
  },
  "1.5B": {
    ...qwen,
    ...{ model_type: "qwen2", hidden_size: 1536, intermediate_size: 8960, num_hidden_layers: 28 },
    ...{ num_attention_heads: 12, num_key_value_heads: 2 },
  },
} as const satisfies Readonly<Record<string, Shape>>;

const ARCHITECTURES: Readonly<Record<string, string>> = {
  llama: "LlamaForCausalLM",
  qwen2: "Qwen2ForCausalLM",
};

/** Writes a folder for a model of that shape. Its weights read as zeros. */
export async function writeShape(folder: string, shape: Shape, dtype: "F32" | "BF16"): Promise<void> {
  const config = {
    architectures: [ARCHITECTURES[String(shape.model_type)]!],
    ...{ hidden_act: "silu", tie_word_embeddings: true, rope_scaling: null },
    ...shape,
  };
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(join(folder, "config.json"), JSON.stringify(config));
  await Deno.writeTextFile(join(folder, "tokenizer.json"), JSON.stringify(tinyTokenizerJson()));
  await Deno.writeTextFile(join(folder, "tokenizer_config.json"), "{}");
  const { tensors } = readArchitecture(config, folder);
  const { header, size } = planSafetensors([...tensors].map(([name, shape]) => ({ name, dtype, shape })));
  const path = join(folder, "model.safetensors");
  await Deno.writeFile(path, header);
  await Deno.truncate(path, size);
}
