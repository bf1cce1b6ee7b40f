/**
 * The bytes of a cached hidden state: what the teacher's head reads at one position, after the final norm.
 *
 * In f32 and bf16 (rounded to nearest, ties to even) the values one after another; in int8 the row's scale in f32, the largest absolute
 * value / 127, and then the codes, each value / scale rounded to nearest, ties to even. A row is padded to a multiple of four bytes.
 *
 * @module
 */
import { bfloatToFloat32, float32ToBfloat } from "../../formats/dtype.ts";
import { hiddenArrays } from "../program/fed/hidden_target.ts";
import type { HiddenPrecision } from "../recipe/recipe.ts";
import type { RowFeed, RowStorage } from "./row_storage.ts";

/** How hidden states are stored. */
export interface HiddenFormat {
  /** Values of a row: the teacher's hidden size. */
  readonly width: number;
  readonly precision: HiddenPrecision;
}

/** Writes and reads rows. */
export class HiddenCodec implements RowStorage {
  readonly format: HiddenFormat;
  /** Bytes of a row. */
  readonly bytes: number;

  constructor(format: HiddenFormat) {
    this.format = format;
    const { width, precision } = format;
    const own = { f32: 4 * width, bf16: 2 * width, int8: 4 + width }[precision];
    this.bytes = Math.ceil(own / 4) * 4;
  }

  /**
   * Writes a row at a byte of `into`, a multiple of four.
   *
   * @returns whether all its numbers are finite
   */
  write(row: Float32Array, into: ArrayBuffer, at: number): boolean {
    const { width, precision } = this.format;
    const good = row.every(Number.isFinite);
    if (precision === "f32") new Float32Array(into, at, width).set(row);
    else if (precision === "bf16") new Uint16Array(into, at, width).set(float32ToBfloat(row));
    else {
      const scale = Math.fround(row.reduce((most, x) => Math.max(most, Math.abs(x)), 0) / 127);
      new Float32Array(into, at, 1)[0] = scale;
      new Int8Array(into, at + 4, width).set(quantised(row, scale));
    }
    return good;
  }

  /** What comes back of a row, f32. */
  rounded(row: Float32Array): Float32Array {
    const { width, precision } = this.format;
    const bytes = new ArrayBuffer(this.bytes);
    this.write(row, bytes, 0);
    if (precision === "f32") return new Float32Array(bytes, 0, width);
    if (precision === "bf16") return bfloatToFloat32(new Uint16Array(bytes, 0, width));
    const [scale] = new Float32Array(bytes, 0, 1);
    return Float32Array.from(new Int8Array(bytes, 4, width), (code) => code * scale!);
  }

  feed(positions: number): RowFeed {
    const { width, precision } = this.format;
    const { inputs, rows, scales } = hiddenArrays(positions, width, precision);
    // What is copied are the words that the program unpacks.
    const words = rows.length / positions;
    const to = new Uint32Array(rows.buffer);
    return {
      inputs,
      read(from, at, position) {
        if (scales) {
          scales.set(new Float32Array(from, at, 1), position);
          at += 4;
        }
        to.set(new Uint32Array(from, at, words), position * words);
      },
    };
  }
}

function quantised(row: Float32Array, scale: number): Int8Array {
  if (scale === 0) return new Int8Array(row.length);
  return Int8Array.from(row, (x) => roundToEven(Math.fround(x / scale)));
}

function roundToEven(x: number): number {
  const floor = Math.floor(x);
  const above = x - floor;
  if (above !== 0.5) return above < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}
