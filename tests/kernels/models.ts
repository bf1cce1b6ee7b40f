/**
 * Tiny models in a temporary folder, shaped so that planning with them meets every variant of every kernel. Their weights are zero:
 * nothing here is ever computed.
 *
 * @module
 */
import { writeHuggingFaceFolder } from "../../src/formats/huggingface/write.ts";
import type { FloatDtype } from "../../src/formats/dtype.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { readArchitecture } from "../../src/models/families.ts";

/** Sizes of a synthetic decoder. */
export interface ModelSizes {
  readonly dtype: FloatDtype;
  readonly headDim: number;
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly hidden: number;
  readonly intermediate: number;
  readonly vocabulary: number;
  /** 1 by default. */
  readonly layers?: number;
  /** Biases of attention and MLP. */
  readonly bias?: boolean;
  readonly tied?: boolean;
}

/** Every head width that models in use have, an odd one, each storage type, widths that take the kernels for any size. */
export const SIZES: Readonly<Record<string, ModelSizes>> = {
  "heads of 8, f32": {
    dtype: "f32",
    headDim: 8,
    heads: 8,
    keyValueHeads: 4,
    hidden: 64,
    intermediate: 172,
    vocabulary: 512,
    tied: true,
  },
  "heads of 48, f16": {
    dtype: "f16",
    headDim: 48,
    heads: 6,
    keyValueHeads: 6,
    hidden: 288,
    intermediate: 768,
    vocabulary: 2048,
  },
  "heads of 64, bf16, biases": {
    dtype: "bf16",
    headDim: 64,
    heads: 3,
    keyValueHeads: 1,
    hidden: 192,
    intermediate: 512,
    vocabulary: 4100,
    bias: true,
  },
  "heads of 80, f16, biases, odd vocabulary": {
    dtype: "f16",
    headDim: 80,
    heads: 2,
    keyValueHeads: 1,
    hidden: 160,
    intermediate: 320,
    vocabulary: 259,
    bias: true,
    tied: true,
  },
  "heads of 128, bf16": {
    dtype: "bf16",
    headDim: 128,
    heads: 2,
    keyValueHeads: 2,
    hidden: 256,
    intermediate: 512,
    vocabulary: 1000,
    tied: true,
  },
  "heads of 256, f32, biases": {
    dtype: "f32",
    headDim: 256,
    heads: 2,
    keyValueHeads: 1,
    hidden: 256,
    intermediate: 512,
    vocabulary: 513,
    bias: true,
  },
  "heads of 20, f32, odd MLP": {
    dtype: "f32",
    headDim: 20,
    heads: 3,
    keyValueHeads: 3,
    hidden: 36,
    intermediate: 45,
    vocabulary: 127,
  },
  "heads of 12, bf16, odd MLP, biases": {
    dtype: "bf16",
    headDim: 12,
    heads: 3,
    keyValueHeads: 1,
    hidden: 36,
    intermediate: 51,
    vocabulary: 131,
    bias: true,
  },
};

/** Models whose hidden width is no multiple of 4: they can write texts, but not be trained. */
export const ODD_SIZES: Readonly<Record<string, ModelSizes>> = {
  "hidden 30, f32": {
    dtype: "f32",
    headDim: 8,
    heads: 4,
    keyValueHeads: 2,
    hidden: 30,
    intermediate: 45,
    vocabulary: 61,
  },
  "hidden 30, f16, biases": {
    dtype: "f16",
    headDim: 8,
    heads: 4,
    keyValueHeads: 2,
    hidden: 30,
    intermediate: 45,
    vocabulary: 61,
    bias: true,
  },
};

/** Writes the model into `folder` and opens it. */
export async function syntheticModel(folder: string, sizes: ModelSizes): Promise<Model> {
  const config = {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_act: "silu",
    hidden_size: sizes.hidden,
    intermediate_size: sizes.intermediate,
    num_attention_heads: sizes.heads,
    num_key_value_heads: sizes.keyValueHeads,
    num_hidden_layers: sizes.layers ?? 1,
    head_dim: sizes.headDim,
    vocab_size: sizes.vocabulary,
    max_position_embeddings: 256,
    rms_norm_eps: 1e-5,
    rope_theta: 10000.0,
    attention_bias: sizes.bias ?? false,
    mlp_bias: sizes.bias ?? false,
    tie_word_embeddings: sizes.tied ?? false,
  };
  const tensors = readArchitecture(config, folder).tensors;
  await writeHuggingFaceFolder(folder, {
    config,
    tokenizer: { tokenizerJson: {}, tokenizerConfig: {} },
    tensors,
    read: (name) => {
      const shape = tensors.get(name)!;
      const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
      return Promise.resolve({ dtype: "f32" as const, shape, data });
    },
  }, { dtype: sizes.dtype });
  return await Model.open(folder, { category: "weights" });
}
