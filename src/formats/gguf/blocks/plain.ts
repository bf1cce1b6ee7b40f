/**
 * Blocks of 32 values with one scale, and in some types a least value: Q8_0, Q4_0, Q4_1, Q5_0, Q5_1.
 * Nibbles: the low one of byte i is value i, the high one value i + 16.
 *
 * @module
 */
import { halfValues } from "../../dtype.ts";

/**
 * Unpacks whole blocks.
 *
 * @param bytes Blocks one after another
 * @param values Takes as many values as the blocks hold
 */
export type DecodeBlocks = (bytes: Uint8Array, values: Float32Array) => void;

/** Block: f16 scale, 32 signed bytes. Value: scale * byte. */
export const decodeQ8_0: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  const signed = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0, to = 0; to < values.length; at += 34, to += 32) {
    const scale = half[bytes[at] | bytes[at + 1] << 8];
    for (let i = 0; i < 32; i++) values[to + i] = scale * signed[at + 2 + i];
  }
};

/** Block: f16 scale, 16 bytes of nibbles. Value: scale * (nibble - 8). */
export const decodeQ4_0: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  for (let at = 0, to = 0; to < values.length; at += 18, to += 32) {
    const scale = half[bytes[at] | bytes[at + 1] << 8];
    for (let i = 0; i < 16; i++) {
      const nibbles = bytes[at + 2 + i];
      values[to + i] = scale * ((nibbles & 15) - 8);
      values[to + 16 + i] = scale * ((nibbles >>> 4) - 8);
    }
  }
};

/** Block: f16 scale, f16 least value, 16 bytes of nibbles. Value: scale * nibble + least. */
export const decodeQ4_1: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  for (let at = 0, to = 0; to < values.length; at += 20, to += 32) {
    const scale = half[bytes[at] | bytes[at + 1] << 8];
    const least = half[bytes[at + 2] | bytes[at + 3] << 8];
    for (let i = 0; i < 16; i++) {
      const nibbles = bytes[at + 4 + i];
      values[to + i] = scale * (nibbles & 15) + least;
      values[to + 16 + i] = scale * (nibbles >>> 4) + least;
    }
  }
};

/** Block: f16 scale, 32 fifth bits, 16 bytes of nibbles. Value: scale * (number of five bits - 16). */
export const decodeQ5_0: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  for (let at = 0, to = 0; to < values.length; at += 22, to += 32) {
    const scale = half[bytes[at] | bytes[at + 1] << 8];
    const fifth = bytes[at + 2] | bytes[at + 3] << 8 | bytes[at + 4] << 16 | bytes[at + 5] << 24;
    for (let i = 0; i < 16; i++) {
      const nibbles = bytes[at + 6 + i];
      values[to + i] = scale * ((nibbles & 15 | (fifth >>> i & 1) << 4) - 16);
      values[to + 16 + i] = scale * ((nibbles >>> 4 | (fifth >>> (i + 16) & 1) << 4) - 16);
    }
  }
};

/** Block: f16 scale, f16 least value, 32 fifth bits, 16 bytes of nibbles. Value: scale * number of five bits + least. */
export const decodeQ5_1: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  for (let at = 0, to = 0; to < values.length; at += 24, to += 32) {
    const scale = half[bytes[at] | bytes[at + 1] << 8];
    const least = half[bytes[at + 2] | bytes[at + 3] << 8];
    const fifth = bytes[at + 4] | bytes[at + 5] << 8 | bytes[at + 6] << 16 | bytes[at + 7] << 24;
    for (let i = 0; i < 16; i++) {
      const nibbles = bytes[at + 8 + i];
      values[to + i] = scale * (nibbles & 15 | (fifth >>> i & 1) << 4) + least;
      values[to + 16 + i] = scale * (nibbles >>> 4 | (fifth >>> (i + 16) & 1) << 4) + least;
    }
  }
};
