/**
 * Which type each tensor of a written file gets. The mixtures are those that llama-quantize makes under the same names (llama.cpp,
 * llama-quant.cpp): more bits where errors cost most.
 *
 * @module
 */
import { type QuantizeBlocks, quantizeQ4, quantizeQ5, quantizeQ8 } from "./blocks/quantize.ts";
import { quantizeQ4K, quantizeQ6K } from "./blocks/quantize_k.ts";
import { ggufType } from "./types.ts";

/** How the matrices of a file are stored; vectors are always f32. */
export type GgufStorage = "Q8_0" | "Q6_K" | "Q4_K_M" | "Q4_0" | "F16" | "F32";

/** Types that can be written. */
export type WrittenType = "F32" | "F16" | "BF16" | "Q8_0" | "Q6_K" | "Q5_0" | "Q4_K" | "Q4_0";

/** `general.file_type` */
export const fileTypes: Readonly<Record<GgufStorage, number>> = {
  F32: 0,
  F16: 1,
  Q4_0: 2,
  Q8_0: 7,
  Q4_K_M: 15,
  Q6_K: 18,
};

/** What packs values into the blocks of a type. */
export const quantizers: Readonly<Partial<Record<WrittenType, QuantizeBlocks>>> = {
  Q8_0: quantizeQ8,
  Q6_K: quantizeQ6K,
  Q5_0: quantizeQ5,
  Q4_K: quantizeQ4K,
  Q4_0: quantizeQ4,
};

/** What takes the place of a type whose blocks do not fill a row: about as many bits, in blocks of 32. */
const SMALLER_BLOCKS: Readonly<Partial<Record<WrittenType, WrittenType>>> = { Q4_K: "Q5_0", Q6_K: "Q8_0" };

/** The type of one tensor. */
export interface TypeChoice {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: WrittenType;
  /** The type that the mixture gives it, where its rows are no whole blocks of it. */
  readonly instead?: WrittenType;
}

/** A model, as far as types depend on it. */
export interface MixedModel {
  readonly layers: number;
  /** Whether the embedding is the head too. */
  readonly tied: boolean;
}

/** What chooses experts, and learned positions, are as they are whatever the mixture. */
const KEPT = /^position_embd\.weight$|\.ffn_gate_inp\.weight$/;

/** The type of a tensor by its name in the file. */
export function chooseType(
  name: string,
  shape: readonly number[],
  storage: GgufStorage,
  model: MixedModel,
): TypeChoice {
  if (shape.length < 2 || KEPT.test(name)) return { name, shape, type: "F32" };
  const wanted = mixed(name, storage, model);
  const width = shape[shape.length - 1];
  const fits = (type: WrittenType) => width % ggufType(type).block === 0;
  if (fits(wanted)) return { name, shape, type: wanted };
  const smaller = SMALLER_BLOCKS[wanted];
  return { name, shape, type: smaller && fits(smaller) ? smaller : "F16", instead: wanted };
}

function mixed(name: string, storage: GgufStorage, { layers, tied }: MixedModel): WrittenType {
  const isHead = name === (tied ? "token_embd.weight" : "output.weight");
  if (storage === "Q4_0") return isHead ? "Q6_K" : "Q4_0";
  if (storage !== "Q4_K_M") return storage;
  const layer = Number(/^blk\.(\d+)\.(attn_v|ffn_down|ffn_down_exps)\.weight$/.exec(name)?.[1] ?? -1);
  return isHead || (layer >= 0 && needsMoreBits(layer, layers)) ? "Q6_K" : "Q4_K";
}

/** The first and the last eighth of the layers, and every third between. */
function needsMoreBits(layer: number, layers: number): boolean {
  const eighth = Math.floor(layers / 8);
  return layer < eighth || layer >= Math.floor(7 * layers / 8) || (layer - eighth) % 3 === 2;
}
