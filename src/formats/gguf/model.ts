/**
 * A model from a GGUF file, under Hugging Face names: config made from the metadata, rows put back in order.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { toFloat32 } from "../dtype.ts";
import { openFile } from "../files.ts";
import { fingerprint } from "../huggingface/huggingface.ts";
import type { ModelSource, TensorInfo } from "../model_source.ts";
import { checkRows, type TensorData } from "../safetensors/safetensors.ts";
import { refuseWrongDownload } from "../wrong_download.ts";
import { type GgufArchitecture, ROPE_TENSORS } from "./architectures.ts";
import { huggingFaceName } from "./architectures/names.ts";
import {
  type Heads,
  pickRows,
  rangesOf,
  type RowRange,
  type Rows,
  storedRows,
} from "./architectures/rows.ts";
import { architectureOf, ggufConfig, optionalBiases } from "./config.ts";
import { GgufFile, type GgufTensor, unreadableType } from "./gguf.ts";
import { ggufTokenizer } from "./tokenizer.ts";
import { readableGgufTypes } from "./types.ts";

/** Opens a .gguf file of a known architecture. */
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

/** Where a tensor lies. */
interface Place {
  /** Its name in the file; undefined for zeros that the file leaves out. */
  readonly own: string | undefined;
  readonly info: TensorInfo;
  /** Its first row there: a tensor may be a slice of a stack. */
  readonly first: number;
  /** Where each of its rows lies, where they have another order. */
  readonly order: Uint32Array | undefined;
  /** Whether the file has one more than its values. */
  readonly plusOne: boolean;
}

async function modelOf(path: string, file: GgufFile): Promise<ModelSource> {
  const architecture = architectureOf(file.metadata, path);
  for (const [name, { type }] of file.tensors) {
    if (!readableGgufTypes.has(type.name)) throw unreadableType(path, type.name, name);
  }
  const weights = new Map([...file.tensors].filter(([name]) => !ROPE_TENSORS.includes(name)));
  if (weights.size === 0) {
    throw new InputError("there are no weights in it", { where: path, hint: "Is it a vocabulary file?" });
  }
  const rope = new Map<string, number[]>();
  for (const name of ROPE_TENSORS) {
    if (!file.tensors.has(name)) continue;
    const { dtype, data } = await file.read(name);
    rope.set(name, [...toFloat32(dtype, data)]);
  }
  const { metadata, tensors } = file;
  const config = ggufConfig(architecture, { where: path, metadata, tensors, rope });
  const heads = headsOf(config);
  const places = new Map<string, Place>();
  for (const [name, tensor] of weights) {
    for (const [found, place] of placesOf(architecture, name, tensor, heads)) places.set(found, place);
  }
  for (const [bias, weight] of optionalBiases(architecture, config, tensors)) {
    const info = { dtype: "F32", shape: [file.entry(weight).shape[0]], exactDtype: "f32" as const };
    places.set(huggingFaceName(architecture.names, bias).name, {
      ...{ own: undefined, info, first: 0, order: undefined, plusOne: false },
    });
  }

  function placeOf(name: string): Place {
    const found = places.get(name);
    if (found === undefined) throw new InputError(`there is no tensor ${name}`, { where: path });
    return found;
  }

  /** Rows of a tensor, whatever their order in the file. @param read Reads rows of the file */
  async function rowsOf<T extends Rows>(
    place: Place,
    range: RowRange,
    read: (range: RowRange) => Promise<T>,
  ): Promise<T> {
    const { first, order } = place;
    if (!order || range.count === 0) return await read({ first: first + range.first, count: range.count });
    const wanted = order.subarray(range.first, range.first + range.count).map((row) => first + row);
    const ranges = rangesOf(wanted);
    const parts: T[] = [];
    for (const range of ranges) parts.push(await read(range));
    return pickRows(wanted, ranges, parts);
  }

  async function readRows(name: string, first: number, count: number): Promise<TensorData> {
    const place = placeOf(name);
    const { own, info: { shape, exactDtype } } = place;
    checkRows(path, name, shape, first, count);
    const cut = [count, ...shape.slice(1)];
    if (own === undefined) return { dtype: "f32", shape: cut, data: new Float32Array(count) };
    const data = await rowsOf(place, { first, count }, async ({ first, count }) => {
      const rows = await file.readRows(own, first, count);
      return place.plusOne ? toFloat32(rows.dtype, rows.data) : rows.data;
    });
    return { dtype: exactDtype, shape: cut, data: place.plusOne ? data.map((value) => value - 1) : data };
  }

  return {
    path,
    kind: "gguf",
    config,
    tensors: new Map([...places].map(([name, { info }]) => [name, info])),
    read: (name) => readRows(name, 0, placeOf(name).info.shape[0]!),
    readRows,
    async readBlocks(name, first, count) {
      const place = placeOf(name);
      checkRows(path, name, place.info.shape, first, count);
      return await rowsOf(
        place,
        { first, count },
        ({ first, count }) => file.readBlocks(place.own ?? name, first, count),
      );
    },
    tokenizer: () => Promise.resolve(ggufTokenizer(file)),
    fingerprint: () => fingerprint([file.source]),
    close: () => file.close(),
  };
}

/** The heads of a config, as far as it has them: what is missing is said where the config is read. */
function headsOf(config: Readonly<Record<string, unknown>>): Heads {
  const attentionHeads = (config.num_attention_heads ?? config.n_head) as number;
  const hiddenSize = (config.hidden_size ?? config.n_embd) as number;
  return { attentionHeads, headDim: (config.head_dim as number | undefined) ?? hiddenSize / attentionHeads };
}

/** The tensors that a tensor of the file is: itself, or one for each expert of a stack. */
function placesOf(
  { names, rows, normsPlusOne }: GgufArchitecture,
  own: string,
  { type, shape }: GgufTensor,
  heads: Heads,
): [string, Place][] {
  const { name, module } = huggingFaceName(names, own);
  const plusOne = normsPlusOne === true && /norm\.weight$/.test(own);
  const exactDtype = plusOne ? "f32" : readableGgufTypes.get(type.name)!;
  const moved = module === undefined ? undefined : rows?.[module];
  const order = moved && storedRows(moved, shape[0]!, heads);
  const info = { dtype: type.name, shape, exactDtype };
  if (!name.includes("*") || shape.length !== 3) return [[name, { own, info, first: 0, order, plusOne }]];
  const [experts, height, width] = shape as [number, number, number];
  return Array.from({ length: experts }, (_, i) => [
    name.replace("*", String(i)),
    { own, info: { ...info, shape: [height, width] }, first: i * height, order, plusOne },
  ]);
}
