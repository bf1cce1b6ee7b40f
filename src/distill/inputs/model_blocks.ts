/**
 * Which weights of a model are in blocks on the GPU, and their reading: blocks that the files have, and weights that are quantised here.
 *
 * @module
 */
import type { ModelSource } from "../../formats/model_source.ts";
import {
  type BlockWeight,
  canQuantize,
  QuantisedWeight,
  type QuantizeDtype,
  type ReadRows,
} from "../../formats/quantised/quantiser.ts";
import { StoredBlocks, storedBlocks } from "../../formats/quantised/stored_blocks.ts";
import { type BlockDtype, wholeBlockUnits } from "../../tensor/weight_storage.ts";

/** What decides which weights are in blocks. */
export interface BlockChoice {
  /** Whether blocks of the files are kept; otherwise they are read as numbers. */
  readonly keeps: boolean;
  /** What the weights of `linear` are quantised to where the files have no blocks of them. */
  readonly quantize: QuantizeDtype | undefined;
  /** Weights of linear layers, by their names in the source. */
  readonly linear: readonly string[];
  /** Those of experts, which lie one after another on the GPU: each must be whole blocks. */
  readonly experts: readonly string[];
}

/** The weights of a model that are in blocks on the GPU, by their names in the source. */
export class ModelBlocks {
  readonly #source: ModelSource;
  readonly #read: (name: string) => ReadRows;
  readonly #dtypes = new Map<string, BlockDtype>();
  readonly #quantised = new Set<string>();
  /** The weight that was read last: its scales are made once for all of its rows. */
  #open: { readonly name: string; readonly weight: BlockWeight } | undefined;

  /** @param read Rows of a weight as the source has them, all finite */
  constructor(
    source: ModelSource,
    { keeps, quantize, linear, experts }: BlockChoice,
    read: (name: string) => ReadRows,
  ) {
    [this.#source, this.#read] = [source, read];
    for (const name of source.tensors.keys()) {
      const kept = keeps ? storedBlocks(source, name) : undefined;
      if (kept) this.#dtypes.set(name, kept);
    }
    if (quantize === undefined) return;
    const isStacked = new Set(experts);
    for (const name of [...linear, ...experts]) {
      const { shape } = source.tensors.get(name)!;
      if (this.#dtypes.has(name) || shape.length !== 2 || !canQuantize(quantize, shape[1])) continue;
      if (isStacked.has(name) && wholeBlockUnits(quantize, shape[0] * shape[1]) !== 1) continue;
      this.#dtypes.set(name, quantize);
      this.#quantised.add(name);
    }
  }

  /** The storage of a weight; undefined where it is not in blocks. */
  dtype(name: string): BlockDtype | undefined {
    return this.#dtypes.get(name);
  }

  /** Whether a weight, or any, is quantised when it is read. */
  isQuantised(name?: string): boolean {
    return name === undefined ? this.#quantised.size > 0 : this.#quantised.has(name);
  }

  /** A weight that is in blocks. */
  weight(name: string): BlockWeight {
    if (this.#open?.name !== name) this.#open = { name, weight: this.#openWeight(name) };
    return this.#open.weight;
  }

  #openWeight(name: string): BlockWeight {
    const dtype = this.#dtypes.get(name)!;
    if (!this.#quantised.has(name)) return new StoredBlocks(this.#source, name, dtype);
    const [rows, width] = this.#source.tensors.get(name)!.shape as [number, number];
    return new QuantisedWeight(dtype as QuantizeDtype, [rows, width], this.#read(name));
  }
}
