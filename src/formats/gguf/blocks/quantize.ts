/**
 * f32 values to blocks of 32 with one scale, as llama.cpp rounds them: Q8_0, Q5_0, Q4_0. Every operation is rounded to f32.
 *
 * @module
 */
import { float32ToHalf } from "../../dtype.ts";

/**
 * Packs values into whole blocks.
 *
 * @param values A multiple of the block's length, all finite
 */
export type QuantizeBlocks = (values: Float32Array) => Uint8Array<ArrayBuffer>;

/**
 * The scale is the largest magnitude / 127, kept as f16; values are divided by the unrounded scale and rounded half away from zero.
 */
export const quantizeQ8: QuantizeBlocks = (values) => {
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
  putHalves(bytes, 34, 0, scales);
  return bytes;
};

/** The scale is the value of the largest magnitude, the first of several, / -8; numbers are values / scale + 8, cut off after + 1/2. */
export const quantizeQ4: QuantizeBlocks = (values) => {
  const blocks = values.length / 32;
  const bytes = new Uint8Array(blocks * 18);
  const { scales, numbers } = signedNumbers(values, 8);
  for (let block = 0; block < blocks; block++) {
    for (let i = 0; i < 16; i++) {
      bytes[block * 18 + 2 + i] = numbers[block * 32 + i] | numbers[block * 32 + 16 + i] << 4;
    }
  }
  putHalves(bytes, 18, 0, scales);
  return bytes;
};

/** As Q4_0 with 16 in place of 8. */
export const quantizeQ5: QuantizeBlocks = (values) => {
  const blocks = values.length / 32;
  const bytes = new Uint8Array(blocks * 22);
  const { scales, numbers } = signedNumbers(values, 16);
  for (let block = 0; block < blocks; block++) {
    for (let i = 0; i < 32; i++) {
      const number = numbers[block * 32 + i];
      bytes[block * 22 + 6 + i % 16] |= (number & 15) << (i < 16 ? 0 : 4);
      bytes[block * 22 + 2 + (i >> 3)] |= number >>> 4 << (i & 7);
    }
  }
  putHalves(bytes, 22, 0, scales);
  return bytes;
};

/** Numbers from 0 to 2 * middle - 1, and scales before they are rounded to f16. */
function signedNumbers(values: Float32Array, middle: number): { scales: Float32Array; numbers: Uint8Array } {
  const scales = new Float32Array(values.length / 32);
  const numbers = new Uint8Array(values.length);
  for (let block = 0; block < scales.length; block++) {
    let largest = values[block * 32];
    for (let i = block * 32 + 1; i < block * 32 + 32; i++) {
      if (Math.abs(values[i]) > Math.abs(largest)) largest = values[i];
    }
    const scale = scales[block] = Math.fround(largest / -middle);
    const inverse = scale === 0 ? 0 : Math.fround(1 / scale);
    for (let i = block * 32; i < block * 32 + 32; i++) {
      const shifted = Math.fround(Math.fround(values[i] * inverse) + (middle + 0.5));
      numbers[i] = Math.min(2 * middle - 1, Math.trunc(shifted));
    }
  }
  return { scales, numbers };
}

/** Writes one f16 into every block, `at` bytes from its beginning. */
export function putHalves(bytes: Uint8Array, blockBytes: number, at: number, values: Float32Array): void {
  const halves = float32ToHalf(values);
  for (let block = 0; block < halves.length; block++) {
    bytes[block * blockBytes + at] = halves[block] & 255;
    bytes[block * blockBytes + at + 1] = halves[block] >>> 8;
  }
}
