/**
 * The tensors a decoder needs, by their Hugging Face names, and the check that a model has them.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";
import type { DecoderConfig } from "./config.ts";

/**
 * Every tensor of the model with its shape, [rows, columns] for a weight: a linear layer computes x W^T.
 *
 * @example
 * ```ts
 * expectedTensors(config).get("model.layers.0.mlp.down_proj.weight"); // [hiddenSize, intermediateSize]
 * ```
 */
export function expectedTensors(config: DecoderConfig): Map<string, number[]> {
  const { hiddenSize, intermediateSize, vocabularySize, headDim } = config;
  const queries = config.attentionHeads * headDim;
  const keys = config.keyValueHeads * headDim;
  const tensors = new Map<string, number[]>([["model.embed_tokens.weight", [vocabularySize, hiddenSize]]]);

  function linear(name: string, rows: number, columns: number, bias: boolean): void {
    tensors.set(`${name}.weight`, [rows, columns]);
    if (bias) tensors.set(`${name}.bias`, [rows]);
  }

  for (let layer = 0; layer < config.layers; layer++) {
    const prefix = `model.layers.${layer}`;
    tensors.set(`${prefix}.input_layernorm.weight`, [hiddenSize]);
    linear(`${prefix}.self_attn.q_proj`, queries, hiddenSize, config.attentionBias);
    linear(`${prefix}.self_attn.k_proj`, keys, hiddenSize, config.attentionBias);
    linear(`${prefix}.self_attn.v_proj`, keys, hiddenSize, config.attentionBias);
    linear(`${prefix}.self_attn.o_proj`, hiddenSize, queries, config.attentionBias);
    tensors.set(`${prefix}.post_attention_layernorm.weight`, [hiddenSize]);
    linear(`${prefix}.mlp.gate_proj`, intermediateSize, hiddenSize, config.mlpBias);
    linear(`${prefix}.mlp.up_proj`, intermediateSize, hiddenSize, config.mlpBias);
    linear(`${prefix}.mlp.down_proj`, hiddenSize, intermediateSize, config.mlpBias);
  }
  tensors.set("model.norm.weight", [hiddenSize]);
  if (!config.tiedHead) tensors.set("lm_head.weight", [vocabularySize, hiddenSize]);
  return tensors;
}

/** What is looked at of a stored tensor. */
export interface StoredTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
}

const readableDtypes = ["F32", "F16", "BF16", "Q8_0", "Q4_0"];
const mostReported = 12;

/** Buffers that old checkpoints hold and that are computed from the config. */
function isDerivedBuffer(name: string): boolean {
  return name.endsWith("rotary_emb.inv_freq");
}

/**
 * Everything wrong with a model's tensors, one line each; empty when all is well. A stored head that the config ties to the
 * embedding is not counted as unexpected: the embedding is what is used, as in transformers.
 */
export function tensorProblems(config: DecoderConfig, tensors: ReadonlyMap<string, StoredTensor>): string[] {
  const expected = expectedTensors(config);
  const problems: string[] = [];
  for (const [name, shape] of expected) {
    const stored = tensors.get(name);
    if (!stored) {
      const hint = name === "lm_head.weight"
        ? " (is tie_word_embeddings: true missing from the config?)"
        : "";
      problems.push(`${name} is missing, expected shape [${shape.join(", ")}]${hint}`);
    } else if (stored.shape.length !== shape.length || shape.some((size, i) => stored.shape[i] !== size)) {
      problems.push(`${name} has shape [${stored.shape.join(", ")}], expected [${shape.join(", ")}]`);
    } else if (!readableDtypes.includes(stored.dtype)) {
      problems.push(`${name} has dtype ${stored.dtype}, expected one of ${readableDtypes.join(", ")}`);
    }
  }
  for (const name of tensors.keys()) {
    const tied = name === "lm_head.weight" && config.tiedHead;
    if (!expected.has(name) && !tied && !isDerivedBuffer(name)) {
      problems.push(`${name} is not part of this model`);
    }
  }
  return problems;
}

/**
 * Checks that a model has every tensor its config asks for, in the right shape, and no other.
 *
 * @throws {InputError} listing every problem at once.
 */
export function checkTensors(
  config: DecoderConfig,
  tensors: ReadonlyMap<string, StoredTensor>,
  where: string,
): void {
  const problems = tensorProblems(config, tensors);
  if (problems.length === 0) return;
  const shown = problems.slice(0, mostReported).map((problem) => `\n  ${problem}`).join("");
  const rest = problems.length > mostReported ? `\n  and ${problems.length - mostReported} more` : "";
  throw new InputError(`the weights do not fit config.json:${shown}${rest}`, {
    where,
    hint: "Config and weights must come from the same model.",
  });
}
