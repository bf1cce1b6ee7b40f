/**
 * A model from a GGUF file, under Hugging Face names: config made from the metadata, rows of q and k put back in order.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { FloatData } from "../dtype.ts";
import { openFile } from "../files.ts";
import { GgufFile, unreadableType } from "./gguf.ts";
import { ggufConfig, optionalBiases, requireLlama } from "./config.ts";
import { ggufTokenizer } from "./tokenizer.ts";
import { readableGgufTypes } from "./types.ts";
import { fingerprint } from "../huggingface/huggingface.ts";
import type { ModelSource, TensorInfo } from "../model_source.ts";
import { checkRows, type TensorData } from "../safetensors/safetensors.ts";
import { refuseWrongDownload } from "../wrong_download.ts";

const fixedNames: Readonly<Record<string, string>> = {
  "token_embd.weight": "model.embed_tokens.weight",
  "output_norm.weight": "model.norm.weight",
  "output.weight": "lm_head.weight",
};

/** Parts of a layer, GGUF name to Hugging Face name. */
const layerNames: Readonly<Record<string, string>> = {
  attn_norm: "input_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  ffn_norm: "post_attention_layernorm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};

/** What divides the rotary frequencies; part of the config here, not a weight. */
const ropeFactors = "rope_freqs.weight";

/** The Hugging Face name of a GGUF tensor, or its own name when there is none. */
export function huggingFaceName(name: string): string {
  const layer = /^blk\.(\d+)\.([a-z_]+)\.(weight|bias)$/.exec(name);
  const part = layer && layerNames[layer[2]];
  return fixedNames[name] ?? (part ? `model.layers.${layer[1]}.${part}.${layer[3]}` : name);
}

/** The GGUF name of a Hugging Face tensor, or undefined when there is none. */
export function ggufName(name: string): string | undefined {
  for (const [gguf, huggingFace] of Object.entries(fixedNames)) if (huggingFace === name) return gguf;
  const layer = /^model\.layers\.(\d+)\.([a-z_.]+)\.(weight|bias)$/.exec(name);
  if (!layer) return undefined;
  for (const [gguf, huggingFace] of Object.entries(layerNames)) {
    if (huggingFace === layer[2]) return `blk.${layer[1]}.${gguf}.${layer[3]}`;
  }
  return undefined;
}

/** Opens a .gguf file of the llama architecture. */
export async function openGgufModel(path: string): Promise<ModelSource> {
  const source = await openFile(path);
  try {
    await refuseWrongDownload(source);
    return await modelOf(path, await GgufFile.open(source));
  } catch (error) {
    source.close?.();
    throw error;
  }
}

async function modelOf(path: string, file: GgufFile): Promise<ModelSource> {
  requireLlama(file);
  const stored = new Map<string, string>();
  const tensors = new Map<string, TensorInfo>();
  for (const [name, { type, shape }] of file.tensors) {
    const exactDtype = readableGgufTypes.get(type.name);
    if (!exactDtype) throw unreadableType(path, type.name, name);
    if (name === ropeFactors) continue;
    stored.set(huggingFaceName(name), name);
    tensors.set(huggingFaceName(name), { dtype: type.name, shape, exactDtype });
  }
  if (tensors.size === 0) {
    throw new InputError("there are no weights in it", { where: path, hint: "Is it a vocabulary file?" });
  }
  const factors = file.tensors.has(ropeFactors) ? await file.read(ropeFactors) : undefined;
  const config = ggufConfig(file, factors && [...factors.data]);
  const headDim = config.head_dim as number;
  const zeros = new Set<string>();
  for (const [bias, weight] of optionalBiases(config, file.tensors)) {
    const name = huggingFaceName(bias);
    zeros.add(name);
    tensors.set(name, { dtype: "F32", shape: [file.entry(weight).shape[0]], exactDtype: "f32" });
  }

  function storedName(name: string): string {
    const found = stored.get(name);
    if (found === undefined) throw new InputError(`there is no tensor ${name}`, { where: path });
    return found;
  }

  /** Rows change place within their head only, so the heads that a range touches are read whole, put in order and cut. */
  function headsAround(name: string, own: string, first: number, count: number) {
    const { shape } = file.entry(own);
    checkRows(path, name, shape, first, count);
    const begin = Math.floor(first / headDim) * headDim;
    const end = Math.min(shape[0], Math.ceil((first + count) / headDim) * headDim);
    return {
      first: begin,
      count: end - begin,
      pick<T extends Rows>(stored: T): T {
        const width = stored.length / (end - begin) || 0;
        const moved = moveHeadRows(stored, end - begin, headDim, "toHalves");
        return moved.slice((first - begin) * width, (first - begin + count) * width) as T;
      },
    };
  }

  return {
    path,
    kind: "gguf",
    config,
    tensors,
    async read(name) {
      if (zeros.has(name)) return zeroVector(tensors.get(name)!.shape[0]);
      const tensor = await file.read(storedName(name));
      return isPermuted(name) ? permuteHeads(tensor, headDim, "toHalves") : tensor;
    },
    async readRows(name, first, count) {
      if (zeros.has(name)) {
        checkRows(path, name, tensors.get(name)!.shape, first, count);
        return zeroVector(count);
      }
      const own = storedName(name);
      if (!isPermuted(name)) return await file.readRows(own, first, count);
      const heads = headsAround(name, own, first, count);
      const { dtype, shape, data } = await file.readRows(own, heads.first, heads.count);
      return { dtype, shape: [count, ...shape.slice(1)], data: heads.pick(data) };
    },
    async readBlocks(name, first, count) {
      const own = storedName(name);
      if (!isPermuted(name)) return await file.readBlocks(own, first, count);
      const heads = headsAround(name, own, first, count);
      return heads.pick(await file.readBlocks(own, heads.first, heads.count));
    },
    tokenizer: () => Promise.resolve(ggufTokenizer(file)),
    fingerprint: () => fingerprint([file.source]),
    close: () => file.close(),
  };
}

function zeroVector(count: number): TensorData {
  return { dtype: "f32", shape: [count], data: new Float32Array(count) };
}

/** Whether llama.cpp's converter changed the order of a tensor's rows. */
export function isPermuted(name: string): boolean {
  return /\.self_attn\.[qk]_proj\.(weight|bias)$/.test(name);
}

/**
 * Moves the rows of every head between the two orders of rotary pairs. Hugging Face rotates row i with row i + d/2 ("halves"),
 * llama.cpp rotates neighbours, rows 2i and 2i + 1.
 */
export function permuteHeads(
  tensor: TensorData,
  headDim: number,
  direction: "toHalves" | "toNeighbours",
): TensorData {
  const { dtype, shape, data } = tensor;
  return { dtype, shape, data: moveHeadRows(data, shape[0], headDim, direction) };
}

/** Rows one after another, of values or of bytes. */
type Rows = FloatData | Uint8Array<ArrayBuffer>;

function moveHeadRows<T extends Rows>(
  data: T,
  rows: number,
  headDim: number,
  direction: "toHalves" | "toNeighbours",
): T {
  // A tensor of the wrong shape is reported, with the right one, where config and tensors are compared.
  if (rows % headDim !== 0) return data;
  const width = data.length / rows;
  const moved = data.slice() as T;
  for (let head = 0; head < rows; head += headDim) {
    for (let pair = 0; pair < headDim / 2; pair++) {
      for (let side = 0; side < 2; side++) {
        const neighbour = head + 2 * pair + side;
        const half = head + side * headDim / 2 + pair;
        const [from, to] = direction === "toHalves" ? [neighbour, half] : [half, neighbour];
        moved.set(data.subarray(from * width, (from + 1) * width), to * width);
      }
    }
  }
  return moved;
}
