/**
 * GGUF's tensor types: how many values make a block, how many bytes it takes, and how the ones read here turn into f32.
 * Layouts: https://github.com/ggml-org/ggml, ggml-common.h; every value below is a product of two numbers that f32 holds
 * exactly with room for the product, so unpacking is exact.
 *
 * @module
 */
import { float32ToHalf, type FloatData, type FloatDtype, halfToFloat32 } from "../dtype.ts";

/** A tensor type: `block` values stored in `bytes` bytes. */
export interface GgufType {
  readonly name: string;
  readonly block: number;
  readonly bytes: number;
}

const table: [id: number, name: string, block: number, bytes: number][] = [
  [0, "F32", 1, 4],
  [1, "F16", 1, 2],
  [2, "Q4_0", 32, 18],
  [3, "Q4_1", 32, 20],
  [6, "Q5_0", 32, 22],
  [7, "Q5_1", 32, 24],
  [8, "Q8_0", 32, 34],
  [9, "Q8_1", 32, 36],
  [10, "Q2_K", 256, 84],
  [11, "Q3_K", 256, 110],
  [12, "Q4_K", 256, 144],
  [13, "Q5_K", 256, 176],
  [14, "Q6_K", 256, 210],
  [15, "Q8_K", 256, 292],
  [16, "IQ2_XXS", 256, 66],
  [17, "IQ2_XS", 256, 74],
  [18, "IQ3_XXS", 256, 98],
  [19, "IQ1_S", 256, 50],
  [20, "IQ4_NL", 32, 18],
  [21, "IQ3_S", 256, 110],
  [22, "IQ2_S", 256, 82],
  [23, "IQ4_XS", 256, 136],
  [24, "I8", 1, 1],
  [25, "I16", 1, 2],
  [26, "I32", 1, 4],
  [27, "I64", 1, 8],
  [28, "F64", 1, 8],
  [29, "IQ1_M", 256, 56],
  [30, "BF16", 1, 2],
  [34, "TQ1_0", 256, 54],
  [35, "TQ2_0", 256, 66],
  [39, "MXFP4", 32, 17],
];

/** Every type that the format knows, by its number. Numbers 4, 5, 31 to 33 and 36 to 38 were removed from it. */
export const ggufTypes: ReadonlyMap<number, GgufType> = new Map(
  table.map(([id, name, block, bytes]) => [id, { name, block, bytes }]),
);

/** The number of a type. */
export function ggufTypeNumber(name: string): number {
  return table.find((row) => row[1] === name)![0];
}

/** The types whose tensors can be read, and the storage they are handed on in. */
export const readableGgufTypes: ReadonlyMap<string, FloatDtype> = new Map([
  ["F32", "f32"],
  ["F16", "f16"],
  ["BF16", "bf16"],
  ["Q8_0", "f32"],
  ["Q4_0", "f32"],
]);

/** Values of a tensor from its bytes: floats as they are stored, quantised blocks unpacked to f32. */
export function unpackGguf(type: string, bytes: Uint8Array<ArrayBuffer>): FloatData {
  switch (type) {
    case "F32":
      return new Float32Array(bytes.buffer);
    case "F16":
    case "BF16":
      return new Uint16Array(bytes.buffer);
    case "Q8_0":
      return unpackQ8(bytes);
    case "Q4_0":
      return unpackQ4(bytes);
  }
  throw new RangeError(`GGUF type ${type} cannot be unpacked`);
}

/** The f16 scales at the start of blocks that are `blockBytes` long. */
function scalesOf(bytes: Uint8Array, blockBytes: number): Float32Array {
  const half = new Uint16Array(bytes.length / blockBytes);
  for (let block = 0; block < half.length; block++) {
    half[block] = bytes[block * blockBytes] | (bytes[block * blockBytes + 1] << 8);
  }
  return halfToFloat32(half);
}

/** Block: f16 scale, 32 signed bytes. Value: scale * byte. */
function unpackQ8(bytes: Uint8Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  const scales = scalesOf(bytes, 34);
  const signed = new Int8Array(bytes.buffer);
  const values = new Float32Array(scales.length * 32);
  for (let block = 0; block < scales.length; block++) {
    const scale = scales[block];
    const from = block * 34 + 2;
    for (let i = 0; i < 32; i++) values[block * 32 + i] = scale * signed[from + i];
  }
  return values;
}

/** Block: f16 scale, 16 bytes; low nibbles are values 0 to 15, high nibbles 16 to 31. Value: scale * (nibble - 8). */
function unpackQ4(bytes: Uint8Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  const scales = scalesOf(bytes, 18);
  const values = new Float32Array(scales.length * 32);
  for (let block = 0; block < scales.length; block++) {
    const scale = scales[block];
    const from = block * 18 + 2;
    for (let i = 0; i < 16; i++) {
      const nibbles = bytes[from + i];
      values[block * 32 + i] = scale * ((nibbles & 15) - 8);
      values[block * 32 + 16 + i] = scale * ((nibbles >>> 4) - 8);
    }
  }
  return values;
}

/**
 * f32 values to Q8_0 blocks as llama.cpp rounds them: the scale is the largest magnitude / 127, kept as f16; values are
 * divided by the unrounded scale, in f32, and rounded half away from zero.
 *
 * @param values A multiple of 32, all finite.
 */
export function quantizeQ8(values: Float32Array): Uint8Array<ArrayBuffer> {
  const blocks = values.length / 32;
  const scales = new Float32Array(blocks);
  const bytes = new Uint8Array(blocks * 34);
  const signed = new Int8Array(bytes.buffer);
  for (let block = 0; block < blocks; block++) {
    let largest = 0;
    for (let i = 0; i < 32; i++) largest = Math.max(largest, Math.abs(values[block * 32 + i]));
    const scale = scales[block] = Math.fround(largest / 127);
    const inverse = scale === 0 ? 0 : Math.fround(1 / scale);
    for (let i = 0; i < 32; i++) {
      const quotient = Math.fround(values[block * 32 + i] * inverse);
      signed[block * 34 + 2 + i] = quotient < 0 ? -Math.floor(0.5 - quotient) : Math.floor(quotient + 0.5);
    }
  }
  const half = float32ToHalf(scales);
  for (let block = 0; block < blocks; block++) {
    bytes[block * 34] = half[block] & 255;
    bytes[block * 34 + 1] = half[block] >>> 8;
  }
  return bytes;
}
