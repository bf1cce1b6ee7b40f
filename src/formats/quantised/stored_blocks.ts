/**
 * Weights that a file has in blocks as kernels read them.
 *
 * @module
 */
import type { BlockDtype } from "../../tensor/weight_storage.ts";
import type { ModelSource } from "../model_source.ts";
import { toFloat32 } from "../dtype.ts";
import { NF4_BLOCK } from "../nf4.ts";
import { type GgufBlockDtype, layOutGguf, layOutNf4, layOutNf4Double } from "./gpu_layout.ts";
import type { BlockWeight } from "./quantiser.ts";

const GGUF_TYPES = { Q8_0: "q8_0", Q4_0: "q4_0", Q4_K: "q4_k", Q6_K: "q6_k" } as const;

/** The storage on the GPU that keeps the blocks in which a file has a matrix; undefined where it has none that kernels read. */
export function storedBlocks(source: ModelSource, name: string): BlockDtype | undefined {
  const { dtype, shape } = source.tensors.get(name)!;
  if (shape.length !== 2) return undefined;
  const weight = source.nf4?.(name);
  if (weight) return weight.nested ? "nf4-double" : "nf4";
  return source.readBlocks && GGUF_TYPES[dtype as keyof typeof GGUF_TYPES];
}

/** A weight whose blocks a file has: their bits are those that kernels read. */
export class StoredBlocks implements BlockWeight {
  readonly dtype: BlockDtype;
  readonly #source: ModelSource;
  readonly #name: string;

  /** @param dtype What {@linkcode storedBlocks} says of it */
  constructor(source: ModelSource, name: string, dtype: BlockDtype) {
    [this.#source, this.#name, this.dtype] = [source, name, dtype];
  }

  async laidOut(first: number, count: number): Promise<Uint8Array<ArrayBuffer>> {
    const weight = this.#source.nf4?.(this.#name);
    if (!weight) {
      const blocks = await this.#source.readBlocks!(this.#name, first, count);
      return layOutGguf(this.dtype as GgufBlockDtype, blocks);
    }
    const width = this.#source.tensors.get(this.#name)!.shape[1]!;
    const [from, values] = [first * width, count * width];
    const packed = await weight.packed(from, values);
    const block = from / NF4_BLOCK;
    if (weight.nested) return layOutNf4Double(packed, await weight.nestedMagnitudes(), block, values);
    const magnitudes = await weight.magnitudes();
    return layOutNf4(packed, magnitudes.subarray(block, block + Math.ceil(values / NF4_BLOCK)), values);
  }

  async values(first: number, count: number): Promise<Float32Array<ArrayBuffer>> {
    const { dtype, data } = await this.#source.readRows(this.#name, first, count);
    return toFloat32(dtype, data);
  }
}
