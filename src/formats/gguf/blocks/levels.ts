/**
 * Types whose nibbles name one of 16 levels that are not evenly spaced: IQ4_NL, IQ4_XS, MXFP4.
 *
 * @module
 */
import { halfValues } from "../../dtype.ts";
import type { DecodeBlocks } from "./plain.ts";

/** Levels of IQ4_NL and IQ4_XS: closer to each other where weights are dense. */
const NORMAL_LEVELS = Int8Array.of(
  ...[-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113],
);

/** Twice the values of a four-bit float (OCP Microscaling Formats, E2M1). */
const FLOAT_LEVELS = Int8Array.of(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);

/** Block of 32: f16 scale, 16 bytes of nibbles as in Q4_0. Value: scale * level. */
export const decodeIQ4_NL: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  for (let at = 0, to = 0; to < values.length; at += 18, to += 32) {
    decodeNibbles(bytes, at + 2, half[bytes[at] | bytes[at + 1] << 8], NORMAL_LEVELS, values, to);
  }
};

/**
 * Block of 256: f16 scale, the upper two bits of eight scales in a u16, their lower four bits as nibbles, then eight groups of 32 values
 * as in IQ4_NL. Scale of a group: scale * (number of six bits - 32).
 */
export const decodeIQ4_XS: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  for (let at = 0, to = 0; to < values.length; at += 136) {
    const scale = half[bytes[at] | bytes[at + 1] << 8];
    const upper = bytes[at + 2] | bytes[at + 3] << 8;
    for (let group = 0; group < 8; group++, to += 32) {
      const lower = bytes[at + 4 + (group >> 1)] >>> 4 * (group & 1) & 15;
      const own = (lower | (upper >>> 2 * group & 3) << 4) - 32;
      decodeNibbles(bytes, at + 8 + 16 * group, scale * own, NORMAL_LEVELS, values, to);
    }
  }
};

/** Block of 32: the scale's exponent, 16 bytes of nibbles as in Q4_0. Value: 2^(exponent - 128) * doubled level. */
export const decodeMXFP4: DecodeBlocks = (bytes, values) => {
  for (let at = 0, to = 0; to < values.length; at += 17, to += 32) {
    decodeNibbles(bytes, at + 1, 2 ** (bytes[at] - 128), FLOAT_LEVELS, values, to);
  }
};

function decodeNibbles(
  bytes: Uint8Array,
  at: number,
  scale: number,
  levels: Int8Array,
  values: Float32Array,
  to: number,
): void {
  for (let i = 0; i < 16; i++) {
    const nibbles = bytes[at + i];
    values[to + i] = scale * levels[nibbles & 15];
    values[to + 16 + i] = scale * levels[nibbles >>> 4];
  }
}
