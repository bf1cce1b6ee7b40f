/**
 * f32 values to blocks.
 *
 * @module
 */
import { float32ToHalf } from "../../dtype.ts";

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
