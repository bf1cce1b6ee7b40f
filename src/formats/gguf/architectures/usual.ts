/**
 * Hyperparameters that most architectures share.
 *
 * @module
 */
import { type GgufHyperparameters, type GgufRotary, ofLayers } from "../hyperparameters.ts";
import type { GgufKeys, KeyWriter } from "./keys.ts";

/** What divides the rotary frequencies; part of the config here, not a weight. */
export const ROPE_FACTORS = "rope_freqs.weight";

/** Fields of config.json that are called the same in every family. */
export function tokenFields(keys: GgufKeys): Record<string, unknown> {
  const ends = ["eos", "eot", "eom"].map((kind) => keys.token(`tokenizer.ggml.${kind}_token_id`));
  const eosTokens = [...new Set(ends.filter((id) => id !== undefined))];
  return {
    vocab_size: keys.optional("vocab_size") ?? keys.header.tensors.get("token_embd.weight")?.shape[0],
    tie_word_embeddings: !keys.has("output.weight"),
    bos_token_id: keys.token("tokenizer.ggml.bos_token_id") ?? null,
    eos_token_id: eosTokens.length > 1 ? eosTokens : eosTokens[0] ?? null,
  };
}

/** Widths of heads. */
export interface HeadFields {
  readonly hiddenSize: number;
  readonly heads: number;
  readonly headDim: number;
}

/** Widths of heads of a model whose every query head has keys and values of its own. */
export function ungroupedHeads(keys: GgufKeys): HeadFields {
  const fields = headFields(keys);
  const own = keys.optional("attention.head_count_kv") ?? fields.heads;
  if (own !== fields.heads) {
    throw keys.wrong(
      "attention.head_count_kv",
      `is ${own}; only ${fields.heads}, one for each head, is supported`,
    );
  }
  return fields;
}

/** Widths of heads. @throws {InputError} where keys and values are not equally wide */
export function headFields(keys: GgufKeys): HeadFields {
  const hiddenSize = keys.required("embedding_length");
  const heads = keys.required("attention.head_count");
  const headDim = keys.optional("attention.key_length") ?? hiddenSize / heads;
  const values = keys.optional("attention.value_length") ?? headDim;
  if (values !== headDim) {
    throw keys.wrong(
      "attention.value_length",
      `is ${values}; only the width of a head, ${headDim}, is supported`,
    );
  }
  return { hiddenSize, heads, headDim };
}

/**
 * The config of an architecture much like Llama's.
 *
 * @param model Its class in transformers, and `model_type`
 */
export function usualConfig(
  keys: GgufKeys,
  model: { architecture: string; type: string },
): Record<string, unknown> {
  const { hiddenSize, heads, headDim } = headFields(keys);
  return {
    ...modelFields(model),
    hidden_act: "silu",
    hidden_size: hiddenSize,
    intermediate_size: keys.required("feed_forward_length"),
    num_hidden_layers: keys.required("block_count"),
    num_attention_heads: heads,
    num_key_value_heads: keys.optional("attention.head_count_kv") ?? heads,
    head_dim: headDim,
    max_position_embeddings: keys.required("context_length"),
    rms_norm_eps: keys.decimal("attention.layer_norm_rms_epsilon") ??
      keys.required("attention.layer_norm_rms_epsilon"),
    ...tokenFields(keys),
  };
}

/** What a config says of its family. */
export function modelFields(
  { architecture, type }: { architecture: string; type: string },
): Record<string, unknown> {
  return { architectures: [architecture], model_type: type };
}

/** Rotary positions of whole heads, as transformers 4 wrote them. */
export function ropeFields(keys: GgufKeys, headDim: number): Record<string, unknown> {
  const width = keys.optional("rope.dimension_count") ?? headDim;
  if (width !== headDim) {
    throw keys.wrong(
      "rope.dimension_count",
      `is ${width}; only the width of a head, ${headDim}, is supported`,
    );
  }
  const factors = keys.header.rope.get(ROPE_FACTORS);
  return {
    rope_theta: ropeTheta(keys),
    rope_scaling: ropeScaling(keys),
    ...(factors && { rope_frequency_factors: factors }),
  };
}

/** The base of the rotary frequencies. 10000 is what the format gives a file without the key. */
export function ropeTheta(keys: GgufKeys): number {
  return keys.decimal("rope.freq_base") ?? 10000;
}

/** `rope_scaling` of the frequencies of all layers. */
export function ropeScaling(keys: GgufKeys): Record<string, unknown> | null {
  const type = keys.get("rope.scaling.type");
  const own = keys.decimal("rope.scaling.factor");
  const factor = own ?? keys.decimal("rope.scale_linear");
  if (type === "none" || (type === undefined && (factor === undefined || factor === 1))) return null;
  return { rope_type: type ?? "linear", ...(factor !== undefined && { factor }) };
}

/** `partial_rotary_factor`: the part of a head that is rotated. */
export function rotaryPart(keys: GgufKeys, headDim: number): number {
  const width = keys.optional("rope.dimension_count") ?? headDim;
  const part = width / headDim;
  // Rounding down is what makes a width of it again.
  return Math.floor(headDim * part) === width ? part : (width + 0.5) / headDim;
}

/** Which layers attend within a window: in every so many layers all but the last, or a list. */
export function slidingFields(
  keys: GgufKeys,
  layers: number,
  fallback: number,
): { layer_types: string[] } {
  const pattern = keys.get("attention.sliding_window_pattern") ?? fallback;
  const slides = typeof pattern === "number"
    ? Array.from({ length: layers }, (_, i) => (i + 1) % pattern !== 0)
    : Array.isArray(pattern) || ArrayBuffer.isView(pattern)
    ? Array.from(pattern as ArrayLike<unknown>, Boolean)
    : [];
  if (slides.length !== layers) {
    throw keys.wrong(
      "attention.sliding_window_pattern",
      `is neither a number nor a list for ${layers} layers`,
    );
  }
  return { layer_types: slides.map((slides) => slides ? "sliding_attention" : "full_attention") };
}

/** Writes which layers attend within a window, where that is not what is taken for granted. */
export function writeSliding(
  keys: KeyWriter,
  { contextLength, ...config }: GgufHyperparameters,
  slides: readonly boolean[],
  fallback: number,
): void {
  const window = ofLayers({ contextLength, ...config }, ({ attention }) => attention.window);
  // A window as long as the context hides nothing.
  keys.count("attention.sliding_window", window ?? contextLength);
  const regular = (pattern: number) => slides.every((slides, i) => slides === ((i + 1) % pattern !== 0));
  if (regular(fallback)) return;
  const pattern = slides.findIndex((slides) => !slides) + 1;
  if (pattern > 0 && regular(pattern)) keys.count("attention.sliding_window_pattern", pattern);
  else keys.flags("attention.sliding_window_pattern", slides);
}

/**
 * Writes rotary positions. @param rope.tensor Whether a tensor says how frequencies are scaled
 */
export function writeRope(keys: KeyWriter, config: GgufHyperparameters, rope: { tensor: boolean }): void {
  const rotary = rotaryOf(config);
  keys.real("rope.freq_base", rotary.theta);
  const factor = constantFactor(rotary);
  if (rope.tensor || factor === undefined || factor === 1) return;
  keys.text("rope.scaling.type", "linear");
  keys.real("rope.scaling.factor", factor);
}

/** The rotary positions of layers that attend everything. */
export function rotaryOf(config: GgufHyperparameters): GgufRotary {
  const { ropeTheta: theta, inverseFrequencies, attentionScaling = 1 } = config;
  const width = 2 * inverseFrequencies.length;
  const own = ofLayers(config, ({ attention }) => {
    const rotary = attention.rotary?.rotary;
    return rotary && sameFrequencies(rotary, { theta, inverseFrequencies }) ? rotary : undefined;
  });
  return own ?? { theta, width, inverseFrequencies, attentionScaling };
}

/** Whether two sets of frequencies are the same. */
export function sameFrequencies(
  a: Pick<GgufRotary, "theta" | "inverseFrequencies">,
  b: Pick<GgufRotary, "theta" | "inverseFrequencies">,
): boolean {
  return a.theta === b.theta && a.inverseFrequencies.length === b.inverseFrequencies.length &&
    a.inverseFrequencies.every((frequency, i) => frequency === b.inverseFrequencies[i]);
}

/** What the plain frequencies are divided by, each. */
export function frequencyFactors(
  { theta, width }: Pick<GgufRotary, "theta" | "width">,
  frequencies: Float64Array,
): Float32Array {
  return Float32Array.from(frequencies, (frequency, i) => theta ** (-2 * i / width) / frequency);
}

/** The one factor that all frequencies are divided by; undefined where there is none. */
function constantFactor({ theta, width, inverseFrequencies }: GgufRotary): number | undefined {
  const factors = frequencyFactors({ theta, width }, inverseFrequencies);
  return factors.every((factor) => Math.abs(factor / factors[0]! - 1) < 1e-6) ? factors[0] : undefined;
}

/** `rope_freqs.weight`, where frequencies are scaled. */
export function ropeFactorTables(config: GgufHyperparameters): ReadonlyMap<string, Float32Array> {
  const rotary = rotaryOf(config);
  const factors = frequencyFactors(rotary, rotary.inverseFrequencies);
  return new Map(factors.some((factor) => factor !== 1) ? [[ROPE_FACTORS, factors]] : []);
}
