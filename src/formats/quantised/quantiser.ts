/**
 * Quantising a weight while it is read, piece by piece: at no time is more of it in f32 than the rows that were asked for.
 *
 * @module
 */
import { type BlockDtype, wholeBlockUnits } from "../../tensor/weight_storage.ts";
import { quantizeQ4, quantizeQ8 } from "../gguf/blocks/quantize.ts";
import { unpackGguf } from "../gguf/types.ts";
import { layOutGguf, layOutNf4, layOutNf4Double } from "./gpu_layout.ts";
import {
  dequantizeNf4,
  magnitudesOf,
  type NestedMagnitudes,
  NF4_BLOCK,
  quantizeMagnitudes,
  quantizeNf4,
  restoreMagnitudes,
} from "../nf4.ts";

/** What weights can be quantised to while they are loaded. */
const QUANTIZE_DTYPES = ["nf4", "nf4-double", "q8_0", "q4_0"] as const;

/** One of {@linkcode QUANTIZE_DTYPES}. */
export type QuantizeDtype = (typeof QUANTIZE_DTYPES)[number];

/** Whether rows of so many values can be quantised so: Q8_0 and Q4_0 have blocks of 32 within a row. */
export function canQuantize(dtype: QuantizeDtype, width: number): boolean {
  return dtype.startsWith("nf4") || width % 32 === 0;
}

/** Rows of a weight in f32. */
export type ReadRows = (first: number, count: number) => Promise<Float32Array<ArrayBuffer>>;

/** A weight in blocks. */
export interface BlockWeight {
  readonly dtype: BlockDtype;
  /** Rows as kernels read them; the first begins a block on the GPU. */
  laidOut(first: number, count: number): Promise<Uint8Array<ArrayBuffer>>;
  /** Any rows, as numbers. */
  values(first: number, count: number): Promise<Float32Array<ArrayBuffer>>;
}

/** A weight that is quantised when its rows are asked for. */
export class QuantisedWeight implements BlockWeight {
  readonly dtype: QuantizeDtype;
  readonly #rows: number;
  readonly #width: number;
  readonly #read: ReadRows;
  #nested: Promise<NestedMagnitudes> | undefined;

  /**
   * @param shape [rows, values of a row]
   * @param read Its rows as they are stored, all finite
   */
  constructor(dtype: QuantizeDtype, [rows, width]: readonly [number, number], read: ReadRows) {
    this.dtype = dtype;
    [this.#rows, this.#width, this.#read] = [rows, width, read];
  }

  async laidOut(first: number, count: number): Promise<Uint8Array<ArrayBuffer>> {
    const values = await this.#read(first, count);
    if (this.dtype === "q8_0") return layOutGguf("q8_0", quantizeQ8(values));
    if (this.dtype === "q4_0") return layOutGguf("q4_0", quantizeQ4(values));
    const { packed, magnitudes } = quantizeNf4(values);
    if (this.dtype === "nf4") return layOutNf4(packed, magnitudes, values.length);
    return layOutNf4Double(packed, await this.#nestedMagnitudes(), this.#block(first), values.length);
  }

  async values(first: number, count: number): Promise<Float32Array<ArrayBuffer>> {
    // From the beginning of a block to the end of one.
    const step = wholeBlockUnits(this.dtype, this.#width);
    const from = Math.floor(first / step) * step;
    const to = Math.min(this.#rows, Math.ceil((first + count) / step) * step);
    const values = await this.#quantised(from, to - from);
    return values.subarray((first - from) * this.#width, (first - from + count) * this.#width);
  }

  async #quantised(first: number, count: number): Promise<Float32Array<ArrayBuffer>> {
    const values = await this.#read(first, count);
    if (this.dtype === "q8_0") return unpackGguf("Q8_0", quantizeQ8(values)) as Float32Array<ArrayBuffer>;
    if (this.dtype === "q4_0") return unpackGguf("Q4_0", quantizeQ4(values)) as Float32Array<ArrayBuffer>;
    const quantised = quantizeNf4(values);
    if (this.dtype === "nf4") return dequantizeNf4(quantised, 0, values.length);
    const nested = await this.#nestedMagnitudes();
    const magnitudes = restoreMagnitudes(nested, this.#block(first), quantised.magnitudes.length);
    return dequantizeNf4({ packed: quantised.packed, magnitudes }, 0, values.length);
  }

  /** The block that a row begins. */
  #block(row: number): number {
    return row * this.#width / NF4_BLOCK;
  }

  /** The mean of all magnitudes has to be known before the first is quantised, so the weight is read once more for them. */
  #nestedMagnitudes(): Promise<NestedMagnitudes> {
    return this.#nested ??= this.#measure();
  }

  async #measure(): Promise<NestedMagnitudes> {
    const magnitudes = new Float32Array(Math.ceil(this.#rows * this.#width / NF4_BLOCK));
    const step = wholeBlockUnits(this.dtype, this.#width);
    const piece = Math.max(step, Math.floor(PIECE_VALUES / this.#width / step) * step);
    for (let first = 0; first < this.#rows; first += piece) {
      const values = await this.#read(first, Math.min(piece, this.#rows - first));
      magnitudes.set(magnitudesOf(values), this.#block(first));
    }
    return quantizeMagnitudes(magnitudes);
  }
}

const PIECE_VALUES = 2 ** 22;
