/**
 * The Llama family (Touvron et al., arXiv 2302.13971): RMS norm before attention and MLP, rotary positions, grouped-query attention,
 * gated SiLU. Mistral, SmolLM and MiniMind are the same computation with other numbers.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { Tensor } from "../../tensor/graph.ts";
import { addRow } from "../../tensor/ops/add_row.ts";
import { attention } from "../../tensor/ops/attention.ts";
import { add } from "../../tensor/ops/combine.ts";
import { embedding } from "../../tensor/ops/embedding.ts";
import { gatedSilu } from "../../tensor/ops/gated.ts";
import { linear } from "../../tensor/ops/matmul.ts";
import { rmsNorm } from "../../tensor/ops/rms_norm.ts";
import { rope } from "../../tensor/ops/rope.ts";
import { type DecoderConfig, flag, parseDecoderConfig } from "../config.ts";
import type { ModelContext } from "../context.ts";
import type { LayerProjections, ModelFamily, Widths } from "../family.ts";
import { ROTARY_TABLE, rotaryTable } from "../rope.ts";

/** What sets one Llama apart from another beside its sizes. */
interface LlamaConfig extends DecoderConfig {
  /** Whether q, k, v and o have a bias. */
  readonly attentionBias: boolean;
  /** Whether gate, up and down have a bias. */
  readonly mlpBias: boolean;
}

/** Mistral's name, where its config means something else than Llama's. */
const MISTRAL = "MistralForCausalLM";

const PROJECTIONS: LayerProjections = {
  queries: "self_attn.q_proj",
  keys: "self_attn.k_proj",
  values: "self_attn.v_proj",
  attentionOutput: "self_attn.o_proj",
  mlpInputs: ["mlp.gate_proj", "mlp.up_proj"],
  mlpOutput: "mlp.down_proj",
};

const NAMES = { embedding: "model.embed_tokens.weight", layers: "model.layers", head: "lm_head" } as const;

/** Llama, and what computes as it does. */
export const llama: ModelFamily<LlamaConfig> = {
  name: "llama",
  architectures: { LlamaForCausalLM: "llama", [MISTRAL]: "mistral" },
  names: NAMES,
  gguf: "llama",
  parse,
  tables: (config) => ({ [ROTARY_TABLE]: (rows) => rotaryTable(config, rows) }),
  decoder,
  head,
  narrowing: { projections: PROJECTIONS, config: narrowed },
};

function parse(config: Readonly<Record<string, unknown>>, architecture: string, where: string): LlamaConfig {
  const activation = config.hidden_act;
  if (activation !== "silu" && activation !== "swish") {
    throw new InputError(`hidden_act is ${JSON.stringify(activation)}; only "silu" is supported`, { where });
  }
  const isMistral = architecture === MISTRAL;
  // transformers takes 8 for a Mistral without this field, which no file relies on; for Llama it means no grouping.
  const common = parseDecoderConfig(config, architecture, where, {
    grouping: isMistral ? "required" : "none",
    ropeTheta: 10_000,
  });
  if (isMistral) refuseSlidingWindow(config, common.contextLength, where);
  return {
    ...common,
    // Mistral has no biases whatever its config says, as in transformers.
    attentionBias: !isMistral && flag(config, "attention_bias", where),
    mlpBias: !isMistral && flag(config, "mlp_bias", where),
  };
}

/** A Mistral has no place for biases: with them it becomes a Llama, which computes the same, its window being none. */
function narrowed(config: Readonly<Record<string, unknown>>, widths: Widths): Record<string, unknown> {
  const { sliding_window: _, use_sliding_window: __, ...windowless } = config;
  return {
    ...(widths.biases ? { ...windowless, ...LLAMA_WITH_BIASES } : config),
    num_attention_heads: widths.attentionHeads,
    num_key_value_heads: widths.keyValueHeads,
    head_dim: widths.headDim,
    intermediate_size: widths.intermediateSize,
  };
}

const LLAMA_WITH_BIASES = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  attention_bias: true,
  mlp_bias: true,
};

/** Without the field, transformers gives a Mistral a window of 4096; `null` means none. */
function refuseSlidingWindow(
  config: Readonly<Record<string, unknown>>,
  contextLength: number,
  where: string,
): void {
  const window = config.sliding_window === undefined ? 4096 : config.sliding_window;
  if (window === null || config.use_sliding_window === false) return;
  if (typeof window === "number" && window >= contextLength) return;
  const given = config.sliding_window === undefined ? "absent, which means 4096" : JSON.stringify(window);
  throw new InputError(`sliding_window is ${given}; attention within a window is not supported`, {
    where,
    hint: `A window of null, or of at least max_position_embeddings (${contextLength}), is fine.`,
  });
}

function decoder(ctx: ModelContext, config: LlamaConfig): Tensor {
  const { hiddenSize, headDim, attentionHeads, keyValueHeads } = config;
  const { tokens, positions, start, end } = ctx.inputs;
  const queryWidth = attentionHeads * headDim;
  const keyWidth = keyValueHeads * headDim;
  const table = ctx.table(ROTARY_TABLE, headDim);
  const norm = (name: string, x: Tensor) =>
    rmsNorm(x, ctx.weight(`${name}.weight`, [hiddenSize]), config.normEpsilon);
  const biased = (name: string, x: Tensor, width: number, bias: boolean) => {
    const y = ctx.linear(name, x, width);
    return bias ? addRow(y, ctx.weight(`${name}.bias`, [width])) : y;
  };

  const embeddings = ctx.weight(NAMES.embedding, [config.vocabularySize, hiddenSize]);
  let x = ctx.tap("embeddings", embedding(embeddings, tokens));
  for (let i = 0; i < config.layers; i++) {
    x = ctx.layer(i, x, (x) => {
      const at = `${NAMES.layers}.${i}`;
      const h = norm(`${at}.input_layernorm`, x);
      const rotated = (name: string, width: number, heads: number) =>
        rope(
          biased(`${at}.self_attn.${name}`, h, width, config.attentionBias),
          positions,
          table,
          heads,
          headDim,
        );
      const q = ctx.tap(`${at}.queries`, rotated("q_proj", queryWidth, attentionHeads));
      const k = ctx.tap(`${at}.keys`, rotated("k_proj", keyWidth, keyValueHeads));
      const v = ctx.tap(`${at}.values`, biased(`${at}.self_attn.v_proj`, h, keyWidth, config.attentionBias));
      const [keys, values] = [ctx.cached(`${i}.k`, k), ctx.cached(`${i}.v`, v)];
      const heads = { heads: attentionHeads, keyValueHeads, headDim, scale: headDim ** -0.5 };
      const attended = ctx.tap(`${at}.attention`, attention(q, keys, values, { start, end }, heads));
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

function head(ctx: ModelContext, { tiedHead, vocabularySize, hiddenSize }: LlamaConfig, x: Tensor): Tensor {
  return tiedHead
    ? linear(x, ctx.weight(NAMES.embedding, [vocabularySize, hiddenSize]))
    : ctx.linear(NAMES.head, x, vocabularySize);
}
