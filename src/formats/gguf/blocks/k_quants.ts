/**
 * "K" types, blocks of 256 values in groups of 16 or 32 whose scales are themselves small integers times an f16: Q2_K to Q6_K.
 * Bits of a value lie in several places; what is neighbouring in a block are the same bits of neighbouring bytes.
 *
 * @module
 */
import { halfValues } from "../../dtype.ts";
import type { DecodeBlocks } from "./plain.ts";

/**
 * Block: 16 bytes of a scale (low nibble) and a minimum (high nibble) of each group of 16, 64 bytes of pairs of bits, f16 scale of scales,
 * f16 scale of minima. Value: scale * pair - minimum.
 */
export const decodeQ2_K: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  for (let at = 0, to = 0; to < values.length; at += 84) {
    const scale = half[bytes[at + 80] | bytes[at + 81] << 8];
    const minimum = half[bytes[at + 82] | bytes[at + 83] << 8];
    for (let group = 0; group < 16; group++, to += 16) {
      const own = scale * (bytes[at + group] & 15);
      const least = minimum * (bytes[at + group] >>> 4);
      const shift = (group >> 1 & 3) * 2;
      const from = at + 16 + (group >> 3) * 32 + (group & 1) * 16;
      for (let i = 0; i < 16; i++) values[to + i] = own * (bytes[from + i] >>> shift & 3) - least;
    }
  }
};

/**
 * Block: 32 bytes of third bits, 64 bytes of pairs of bits, 12 bytes of sixteen scales of six bits, f16 scale of scales.
 * Value: scale * (scale of the group - 32) * (number of three bits - 4).
 */
export const decodeQ3_K: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  for (let at = 0, to = 0; to < values.length; at += 110) {
    const scale = half[bytes[at + 108] | bytes[at + 109] << 8];
    for (let group = 0; group < 16; group++, to += 16) {
      const lower = bytes[at + 96 + (group & 7)] >>> (group >> 3) * 4 & 15;
      const upper = bytes[at + 104 + (group & 3)] >>> (group >> 2) * 2 & 3;
      const own = scale * ((lower | upper << 4) - 32);
      const half16 = (group & 1) * 16;
      const shift = (group >> 1 & 3) * 2;
      const from = at + 32 + (group >> 3) * 32 + half16;
      const third = group >> 1;
      for (let i = 0; i < 16; i++) {
        const high = bytes[at + half16 + i] >>> third & 1;
        values[to + i] = own * ((bytes[from + i] >>> shift & 3 | high << 2) - 4);
      }
    }
  }
};

/**
 * The scale and the minimum of one of the eight groups of Q4_K and Q5_K, six bits each, in 12 bytes: of the first four groups the low six
 * bits of bytes 0 to 3 and 4 to 7, of the others nibbles of bytes 8 to 11 below the top pairs of bits of the first eight bytes.
 *
 * @returns The scale in the low byte, the minimum above it
 */
export function scaleAndMinimum(bytes: Uint8Array, at: number, group: number): number {
  if (group < 4) return bytes[at + group] & 63 | (bytes[at + 4 + group] & 63) << 8;
  const nibbles = bytes[at + 4 + group];
  const scale = nibbles & 15 | bytes[at + group - 4] >>> 6 << 4;
  const minimum = nibbles >>> 4 | bytes[at + group] >>> 6 << 4;
  return scale | minimum << 8;
}

/** Block: f16 scale of scales, f16 scale of minima, 12 bytes of those, 128 bytes of nibbles. Value: scale * nibble - minimum. */
export const decodeQ4_K: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  for (let at = 0, to = 0; to < values.length; at += 144) {
    const scale = half[bytes[at] | bytes[at + 1] << 8];
    const minimum = half[bytes[at + 2] | bytes[at + 3] << 8];
    for (let group = 0; group < 8; group++, to += 32) {
      const both = scaleAndMinimum(bytes, at + 4, group);
      const own = scale * (both & 255);
      const least = minimum * (both >>> 8);
      const shift = (group & 1) * 4;
      const from = at + 16 + (group >> 1) * 32;
      for (let i = 0; i < 32; i++) values[to + i] = own * (bytes[from + i] >>> shift & 15) - least;
    }
  }
};

/** As Q4_K with 32 bytes of fifth bits before the nibbles: bit g of byte i belongs to value i of group g. */
export const decodeQ5_K: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  for (let at = 0, to = 0; to < values.length; at += 176) {
    const scale = half[bytes[at] | bytes[at + 1] << 8];
    const minimum = half[bytes[at + 2] | bytes[at + 3] << 8];
    for (let group = 0; group < 8; group++, to += 32) {
      const both = scaleAndMinimum(bytes, at + 4, group);
      const own = scale * (both & 255);
      const least = minimum * (both >>> 8);
      const shift = (group & 1) * 4;
      const from = at + 48 + (group >> 1) * 32;
      for (let i = 0; i < 32; i++) {
        const fifth = bytes[at + 16 + i] >>> group & 1;
        values[to + i] = own * (bytes[from + i] >>> shift & 15 | fifth << 4) - least;
      }
    }
  }
};

/**
 * Block: 128 bytes of nibbles, 64 bytes of the upper pairs of bits, 16 signed bytes of scales, f16 scale of scales.
 * Value: scale * scale of the group * (number of six bits - 32).
 */
export const decodeQ6_K: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  const signed = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0, to = 0; to < values.length; at += 210) {
    const scale = half[bytes[at + 208] | bytes[at + 209] << 8];
    for (let group = 0; group < 16; group++, to += 16) {
      const own = scale * signed[at + 192 + group];
      // Of 128 values, 64 have the low nibbles of 64 bytes, 64 the high ones; 32 bytes hold the upper bits of all.
      const quarter = group >> 1 & 3;
      const low = at + (group >> 3) * 64 + (quarter & 1) * 32 + (group & 1) * 16;
      const high = at + 128 + (group >> 3) * 32 + (group & 1) * 16;
      const shift = (quarter >> 1) * 4;
      for (let i = 0; i < 16; i++) {
        const number = bytes[low + i] >>> shift & 15 | (bytes[high + i] >>> quarter * 2 & 3) << 4;
        values[to + i] = own * (number - 32);
      }
    }
  }
};
