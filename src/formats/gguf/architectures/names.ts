/**
 * Names of tensors in GGUF files and in Hugging Face's.
 *
 * @module
 */

/** How the tensors of an architecture are called. */
export interface TensorNames {
  /** Whole names outside of layers, GGUF to Hugging Face. */
  readonly outside: Readonly<Record<string, string>>;
  /** What stands before a layer's number in Hugging Face names, without the dot. */
  readonly layers: string;
  /**
   * Modules of a layer, GGUF to Hugging Face. Where the name of the latter has a `*`, which stands for the number of an expert, the tensor is
   * a stack of the experts'.
   */
  readonly modules: Readonly<Record<string, string>>;
}

/** A tensor of the file that a Hugging Face tensor is, or is a slice of. */
export interface GgufName {
  readonly name: string;
  /** Its module in a layer, such as `attn_q`; undefined outside of layers. */
  readonly module?: string;
  /** Which slice of a stack. */
  readonly expert?: number;
}

/** The GGUF name of a Hugging Face tensor, or undefined where there is none. */
export function ggufName(names: TensorNames, name: string): GgufName | undefined {
  for (const [gguf, huggingFace] of Object.entries(names.outside)) {
    if (huggingFace === name) return { name: gguf };
  }
  const before = `${names.layers}.`;
  const layer = name.startsWith(before)
    ? /^(\d+)\.([\w.]+)\.(weight|bias)$/.exec(name.slice(before.length))
    : null;
  if (!layer) return undefined;
  const [, number, path, kind] = layer as unknown as [string, string, string, string];
  for (const [module, huggingFace] of Object.entries(names.modules)) {
    const found = `blk.${number}.${module}.${kind}`;
    if (huggingFace === path) return { name: found, module };
    if (!huggingFace.includes("*")) continue;
    const expert = /\.(\d+)\./.exec(path);
    if (expert && path.replace(expert[0], ".*.") === huggingFace) {
      return { name: found, module, expert: Number(expert[1]) };
    }
  }
  return undefined;
}

/** The Hugging Face name of a GGUF tensor, with a `*` for the number of an expert; its own name where there is none. */
export function huggingFaceName(names: TensorNames, name: string): { name: string; module?: string } {
  const outside = names.outside[name];
  if (outside !== undefined) return { name: outside };
  const layer = /^blk\.(\d+)\.(\w+)\.(weight|bias)$/.exec(name);
  const [, number, module, kind] = layer ?? [];
  const path = module === undefined ? undefined : names.modules[module];
  return path === undefined ? { name } : { name: `${names.layers}.${number}.${path}.${kind}`, module };
}

/** Names that most architectures share. */
export const USUAL_OUTSIDE: Readonly<Record<string, string>> = {
  "token_embd.weight": "model.embed_tokens.weight",
  "output_norm.weight": "model.norm.weight",
  "output.weight": "lm_head.weight",
};

/** Norms before attention and MLP. */
export const USUAL_NORMS: Readonly<Record<string, string>> = {
  attn_norm: "input_layernorm",
  ffn_norm: "post_attention_layernorm",
};

/** Attention with three projections. */
export const USUAL_ATTENTION: Readonly<Record<string, string>> = {
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
};

/** Norms of queries and keys. */
export const USUAL_HEAD_NORMS: Readonly<Record<string, string>> = {
  attn_q_norm: "self_attn.q_norm",
  attn_k_norm: "self_attn.k_norm",
};

/** A gated MLP. */
export const USUAL_MLP: Readonly<Record<string, string>> = {
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};

/** The names of Llama. */
export const USUAL_NAMES: TensorNames = {
  outside: USUAL_OUTSIDE,
  layers: "model.layers",
  modules: { ...USUAL_NORMS, ...USUAL_ATTENTION, ...USUAL_MLP },
};
