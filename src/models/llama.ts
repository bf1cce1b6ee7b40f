/**
 * The Llama family as a plain function over symbolic tensors (Touvron et al., arXiv 2302.13971; Mistral, SmolLM and MiniMind are
 * the same computation with other numbers).
 *
 * @module
 */
import type { Tensor } from "../tensor/graph.ts";
import { attention } from "../tensor/ops/attention.ts";
import { embedding } from "../tensor/ops/embedding.ts";
import { addRow } from "../tensor/ops/add_row.ts";
import { gatedSilu } from "../tensor/ops/gated.ts";
import { add } from "../tensor/ops/combine.ts";
import { linear } from "../tensor/ops/matmul.ts";
import { rmsNorm } from "../tensor/ops/rms_norm.ts";
import { rope } from "../tensor/ops/rope.ts";
import { scatterRows } from "../tensor/ops/cache.ts";
import type { DecoderConfig } from "./config.ts";
import type { ModelContext } from "./context.ts";

/** Where the rotary table lies among a model's weights; see {@linkcode rotaryTable}. */
export const ROTARY_TABLE = "rotary_table";

/** Length of a key-value cache, in tokens over all sequences. */
export interface CacheSpec {
  readonly slots: number;
}

/**
 * Hidden states after the final norm.
 *
 * With a cache, keys and values of this stream are written to `inputs.slots` of each layer's cache first, and attention reads
 * the cache; without, attention reads the stream itself.
 *
 * @returns f32 [T, hiddenSize]
 */
export function decoder(
  ctx: ModelContext,
  config: DecoderConfig,
  positions: number,
  cache?: CacheSpec,
): Tensor {
  const { hiddenSize, headDim, attentionHeads, keyValueHeads } = config;
  const { tokens, positions: position, start, end, slots } = ctx.inputs;
  const queryWidth = attentionHeads * headDim;
  const keyWidth = keyValueHeads * headDim;
  const table = ctx.table(ROTARY_TABLE, [positions, headDim]);
  const norm = (name: string, x: Tensor) =>
    rmsNorm(x, ctx.weight(`${name}.weight`, [hiddenSize]), config.normEpsilon);
  const biased = (name: string, x: Tensor, width: number, bias: boolean) => {
    const y = ctx.linear(name, x, width);
    return bias ? addRow(y, ctx.weight(`${name}.bias`, [width])) : y;
  };

  const embeddings = ctx.weight(EMBEDDING, [config.vocabularySize, hiddenSize]);
  let x = ctx.tap("embeddings", embedding(embeddings, tokens));
  for (let i = 0; i < config.layers; i++) {
    x = ctx.layer(i, x, (x) => {
      const at = `model.layers.${i}`;
      const h = norm(`${at}.input_layernorm`, x);
      const rotated = (name: string, width: number, heads: number) =>
        rope(
          biased(`${at}.self_attn.${name}`, h, width, config.attentionBias),
          position,
          table,
          heads,
          headDim,
        );
      const q = ctx.tap(`${at}.queries`, rotated("q_proj", queryWidth, attentionHeads));
      let k = ctx.tap(`${at}.keys`, rotated("k_proj", keyWidth, keyValueHeads));
      let v = ctx.tap(`${at}.values`, biased(`${at}.self_attn.v_proj`, h, keyWidth, config.attentionBias));
      if (cache) {
        k = scatterRows(
          ctx.graph.state(`${ctx.weights.prefix}cache.${i}.k`, [cache.slots, keyWidth], "f32", "cache"),
          k,
          slots!,
        );
        v = scatterRows(
          ctx.graph.state(`${ctx.weights.prefix}cache.${i}.v`, [cache.slots, keyWidth], "f32", "cache"),
          v,
          slots!,
        );
      }
      const heads = { heads: attentionHeads, keyValueHeads, headDim, scale: headDim ** -0.5 };
      const attended = ctx.tap(`${at}.attention`, attention(q, k, v, { start, end }, heads));
      const afterAttention = add(
        x,
        biased(`${at}.self_attn.o_proj`, attended, hiddenSize, config.attentionBias),
      );
      const m = norm(`${at}.post_attention_layernorm`, afterAttention);
      const gate = biased(`${at}.mlp.gate_proj`, m, config.intermediateSize, config.mlpBias);
      const up = biased(`${at}.mlp.up_proj`, m, config.intermediateSize, config.mlpBias);
      const down = biased(`${at}.mlp.down_proj`, gatedSilu(gate, up), hiddenSize, config.mlpBias);
      return ctx.tap(`${at}.output`, add(afterAttention, down));
    });
  }
  return ctx.tap("final_norm", norm("model.norm", x));
}

/** Names of the inner values that {@linkcode decoder} shows to losses. */
export function tapNames({ layers }: Pick<DecoderConfig, "layers">): string[] {
  const parts = ["queries", "keys", "values", "attention", "output"];
  const ofLayers = Array.from({ length: layers }, (_, i) => parts.map((part) => `model.layers.${i}.${part}`));
  return ["embeddings", ...ofLayers.flat(), "final_norm"];
}

/** Module path of the head. */
export const HEAD = "lm_head";

/** Name of the token embeddings. */
export const EMBEDDING = "model.embed_tokens.weight";

/** Name of the head's weight: the embedding where it is tied. */
export function headWeightName(config: DecoderConfig): string {
  return config.tiedHead ? EMBEDDING : `${HEAD}.weight`;
}

/** Logits f32 [n, vocabularySize] of hidden states x [n, hiddenSize], with what an adapter on the head adds. */
export function head(ctx: ModelContext, config: DecoderConfig, x: Tensor): Tensor {
  const { vocabularySize, hiddenSize } = config;
  return config.tiedHead
    ? linear(x, ctx.weight(EMBEDDING, [vocabularySize, hiddenSize]))
    : ctx.linear(HEAD, x, vocabularySize);
}

/**
 * Cosines and sines of the rotary angles, computed in f64: f32 [positions, headDim], each row the headDim/2 cosines, then the
 * sines. Angles are position times inverse frequency (Su et al., arXiv 2104.09864; pairs i and i + headDim/2 as Hugging Face).
 */
export function rotaryTable(config: DecoderConfig, positions: number): Float32Array {
  const half = config.headDim / 2;
  const table = new Float32Array(positions * config.headDim);
  for (let p = 0; p < positions; p++) {
    for (let i = 0; i < half; i++) {
      const angle = p * config.inverseFrequencies[i]!;
      table[p * config.headDim + i] = Math.cos(angle) * config.attentionScaling;
      table[p * config.headDim + half + i] = Math.sin(angle) * config.attentionScaling;
    }
  }
  return table;
}

/** Names of the linear layers that `all-linear` means, by the last part of their path. */
export const LINEAR_LAYERS = [
  "self_attn.q_proj",
  "self_attn.k_proj",
  "self_attn.v_proj",
  "self_attn.o_proj",
  "mlp.gate_proj",
  "mlp.up_proj",
  "mlp.down_proj",
] as const;

/** Module path and shape [out, in] of every linear layer but the head, in the order of the forward pass. */
export function linearLayers(config: DecoderConfig): { name: string; out: number; in: number }[] {
  const q = config.attentionHeads * config.headDim;
  const kv = config.keyValueHeads * config.headDim;
  const shapes: Record<(typeof LINEAR_LAYERS)[number], [number, number]> = {
    "self_attn.q_proj": [q, config.hiddenSize],
    "self_attn.k_proj": [kv, config.hiddenSize],
    "self_attn.v_proj": [kv, config.hiddenSize],
    "self_attn.o_proj": [config.hiddenSize, q],
    "mlp.gate_proj": [config.intermediateSize, config.hiddenSize],
    "mlp.up_proj": [config.intermediateSize, config.hiddenSize],
    "mlp.down_proj": [config.hiddenSize, config.intermediateSize],
  };
  return Array.from(
    { length: config.layers },
    (_, i) =>
      LINEAR_LAYERS.map((name) => ({
        name: `model.layers.${i}.${name}`,
        out: shapes[name][0],
        in: shapes[name][1],
      })),
  )
    .flat();
}
