/**
 * The layers that most families have, under the names that they share: norm, attention with three projections, norm, gated MLP.
 *
 * @module
 */
import type { Activation } from "../../tensor/ops/activation.ts";
import type { DecoderConfig } from "../config.ts";
import { InputError } from "../../base/errors.ts";
import type { FamilyNames, LayerProjections, Narrowing, Widths } from "../family.ts";
import type { Fields, RawConfig } from "../fields.ts";
import type { Rotary } from "../rope.ts";
import type {
  AttentionDescription,
  DescribedConfig,
  LayerDescription,
  LayerNorms,
  LinearDescription,
  MlpDescription,
  NormDescription,
  NormKind,
  RotaryTable,
} from "./description.ts";

/** Names that most families have. */
export const USUAL_NAMES: FamilyNames = {
  embedding: "model.embed_tokens.weight",
  layers: "model.layers",
  head: "lm_head",
};

/** The linear layers that heads and channels run through, as most families call them. */
const USUAL_PROJECTIONS: LayerProjections = {
  queries: "self_attn.q_proj",
  keys: "self_attn.k_proj",
  values: "self_attn.v_proj",
  attentionOutput: "self_attn.o_proj",
  mlpInputs: ["mlp.gate_proj", "mlp.up_proj"],
  mlpOutput: "mlp.down_proj",
};

/** Activations by the names that configs have for them. */
export const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  silu: "silu",
  swish: "silu",
  gelu: "gelu",
  gelu_new: "gelu_tanh",
  gelu_fast: "gelu_tanh",
  gelu_pytorch_tanh: "gelu_tanh",
};

/** Norms before and after attention and MLP. */
export const SANDWICH_NORMS = {
  beforeAttention: "input_layernorm",
  afterAttention: "post_attention_layernorm",
  beforeMlp: "pre_feedforward_layernorm",
  afterMlp: "post_feedforward_layernorm",
} as const;

/** SiLU by its names, for families that have no other. */
export const SILU: Readonly<Record<string, Activation>> = { silu: "silu", swish: "silu" };

/** What the usual layers of one family have. */
export interface UsualLayers {
  /** Biases of queries, keys and values. */
  readonly queryBias?: boolean;
  readonly outputBias?: boolean;
  readonly mlpBias?: boolean;
  readonly activation?: Activation;
  /** What scores are multiplied by; headDim ** -0.5 when absent. */
  readonly scale?: number;
  readonly norm?: NormKind;
  /** By the names of their modules. Before attention and MLP when absent. */
  readonly norms?: Readonly<Partial<Record<keyof LayerNorms, string>>>;
  /** What queries and keys are normed over. */
  readonly normsOver?: "head" | "row";
}

/** A layer of {@linkcode UsualLayers}, which a family then changes where its layers differ. */
export function usualLayer(
  { headDim, intermediateSize, normEpsilon }: DecoderConfig,
  rotary: Rotary | undefined,
  options: UsualLayers = {},
): LayerDescription {
  const { queryBias = false, outputBias = false, mlpBias = false, normsOver, scale } = options;
  const norm = (name: string): NormDescription => ({
    kind: options.norm ?? "rms",
    name,
    epsilon: normEpsilon,
  });
  const linear = (name: string, bias: boolean): LinearDescription => ({ name, bias });
  const attention: AttentionDescription = {
    projections: {
      queries: linear("self_attn.q_proj", queryBias),
      keys: linear("self_attn.k_proj", queryBias),
      values: linear("self_attn.v_proj", queryBias),
    },
    output: linear("self_attn.o_proj", outputBias),
    ...(normsOver
      ? { queryNorm: norm("self_attn.q_norm"), keyNorm: norm("self_attn.k_norm"), normsOver }
      : {}),
    ...(rotary ? { rotary: rotaryTableOf(rotary) } : {}),
    scale: scale ?? headDim ** -0.5,
  };
  const mlp: MlpDescription = {
    kind: "gated",
    activation: options.activation ?? "silu",
    width: intermediateSize,
    gate: linear("mlp.gate_proj", mlpBias),
    up: linear("mlp.up_proj", mlpBias),
    down: linear("mlp.down_proj", mlpBias),
  };
  const names = options.norms ??
    { beforeAttention: "input_layernorm", beforeMlp: "post_attention_layernorm" };
  const norms = Object.fromEntries(Object.entries(names).map(([place, name]) => [place, norm(name)]));
  return { attention, mlp, norms };
}

/** A layer's rotary positions; layers that differ have tables of other kinds. */
export function rotaryTableOf(rotary: Rotary, kind?: string): RotaryTable {
  return { name: rotaryTableName(kind), rotary };
}

/** Where the table of a kind lies among a model's weights. */
export function rotaryTableName(kind?: string): string {
  return kind === undefined ? "rotary_table" : `rotary_table.${kind}`;
}

/** The same for each layer. */
export function everyLayer<T>({ layers }: DecoderConfig, make: (layer: number) => T): T[] {
  return Array.from({ length: layers }, (_, layer) => make(layer));
}

/** A layer whose queries see so many keys, itself included; a window as long as the context is none. */
export function windowed(
  layer: LayerDescription,
  window: number | undefined,
  { contextLength }: DecoderConfig,
): LayerDescription {
  if (window === undefined || window >= contextLength) return layer;
  return { ...layer, attention: { ...layer.attention, window } };
}

/** Which layers attend within a window, by `layer_types`; undefined where the config has no such list. */
export function slidingLayers(fields: Fields, layers: number): boolean[] | undefined {
  const kinds: Readonly<Record<string, boolean>> = { full_attention: false, sliding_attention: true };
  return fields.byLayer(
    "layer_types",
    layers,
    (kind) => typeof kind === "string" ? kinds[kind] : undefined,
    '"full_attention" or "sliding_attention"',
  );
}

/** The windows of Qwen's layers: by `layer_types`, or in those from `max_window_layers` on; none without `use_sliding_window`. */
export function qwenWindows(
  fields: Fields,
  config: DecoderConfig,
): (layer: LayerDescription, index: number) => LayerDescription {
  const width = fields.optional("sliding_window", 4096);
  const first = fields.get("max_window_layers");
  const listed = slidingLayers(fields, config.layers);
  if (!fields.flag("use_sliding_window")) return (layer) => layer;
  const slides = listed ?? everyLayer(config, (i) => i >= (typeof first === "number" ? first : 28));
  return (layer, i) => windowed(layer, slides[i] ? width : undefined, config);
}

/** `layer_types`, by the windows that layers have. */
export function layerTypes(
  layers: readonly LayerDescription[],
  slides = ({ attention }: LayerDescription) => attention.window !== undefined,
): { layer_types: string[] } {
  return { layer_types: layers.map((layer) => slides(layer) ? "sliding_attention" : "full_attention") };
}

/**
 * How the usual layers are made narrower.
 *
 * @param biased Fields with which `o_proj` and `down_proj` have biases; a family without any has no place for them
 */
export function usualNarrowing(biased: Readonly<Record<string, unknown>> | undefined): Narrowing {
  return {
    projections: USUAL_PROJECTIONS,
    config(config, widths) {
      if (widths.biases && biased === undefined) {
        const [name] = Array.isArray(config.architectures) ? config.architectures : [config.model_type];
        throw new InputError(`a ${name} has no place for biases in place of what is cut`, {
          hint: "Cut it without them (--no-compensation), or cut layers instead.",
        });
      }
      return { ...config, ...usualWidths(widths), ...(widths.biases ? biased : {}) };
    },
  };
}

/**
 * Likewise for a family that computes as Llama does but has no place for these biases: with them it becomes a Llama, which has no windows.
 *
 * @param describe Reads a config of the family
 */
export function narrowedAsLlama(describe: (config: RawConfig) => DescribedConfig): Narrowing {
  const usual = usualNarrowing({
    architectures: ["LlamaForCausalLM"],
    ...{ model_type: "llama", attention_bias: true, mlp_bias: true },
  });
  return {
    ...usual,
    config(config, widths) {
      if (!widths.biases) return usual.config(config, widths);
      if (describe(config).description.layers.some(({ attention }) => attention.window !== undefined)) {
        return usualNarrowing(undefined).config(config, widths);
      }
      return usual.config(
        Object.fromEntries(Object.entries(config).filter(([key]) => !WINDOW_FIELDS.includes(key))),
        widths,
      );
    },
  };
}

const WINDOW_FIELDS = ["sliding_window", "use_sliding_window", "max_window_layers", "layer_types"];

/** Fields of a config with these widths. */
function usualWidths(widths: Widths): Record<string, unknown> {
  return {
    num_attention_heads: widths.attentionHeads,
    num_key_value_heads: widths.keyValueHeads,
    head_dim: widths.headDim,
    intermediate_size: widths.intermediateSize,
  };
}

/** The norm before the head, as most families call it. */
export function finalNorm({ normEpsilon }: DecoderConfig, kind: NormKind = "rms"): NormDescription {
  return { kind, name: "model.norm", epsilon: normEpsilon };
}
