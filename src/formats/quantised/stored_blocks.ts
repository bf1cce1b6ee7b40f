/**
 * Weights that a file has in blocks as kernels read them.
 *
 * @module
 */
import { type BlockDtype } from "../../tensor/weight_storage.ts";
import type { ModelSource } from "../model_source.ts";
import { toFloat32 } from "../dtype.ts";
import { layOutGguf } from "./gpu_layout.ts";
import type { BlockWeight } from "./quantiser.ts";

const GGUF_TYPES = { Q8_0: "q8_0", Q4_0: "q4_0", Q4_K: "q4_k", Q6_K: "q6_k" } as const;

/** The storage on the GPU that keeps the blocks in which a file has a matrix; undefined where it has none that kernels read. */
export function storedBlocks(source: ModelSource, name: string): BlockDtype | undefined {
  const { dtype, shape } = source.tensors.get(name)!;
  if (shape.length !== 2) return undefined;
  if (source.readBlocks) return GGUF_TYPES[dtype as keyof typeof GGUF_TYPES];
  return undefined;
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
    const blocks = await this.#source.readBlocks!(this.#name, first, count);
    return layOutGguf(this.dtype as "q8_0", blocks);
  }

  async values(first: number, count: number): Promise<Float32Array<ArrayBuffer>> {
    const { dtype, data } = await this.#source.readRows(this.#name, first, count);
    return toFloat32(dtype, data);
  }
}
