/**
 * Blocks of 256 values that are the scale, its negative or zero: TQ1_0 and TQ2_0.
 *
 * @module
 */
import { halfValues } from "../../dtype.ts";
import type { DecodeBlocks } from "./plain.ts";

/**
 * Block: 48 bytes of five ternary digits, 4 bytes of four, f16 scale. A byte is a fraction of 256 whose next digit shows after a
 * multiplication by three; digit k of neighbouring bytes are neighbouring values: of 32 bytes, then of 16, then of 4.
 * Value: scale * (digit - 1).
 */
export const decodeTQ1_0: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  for (let at = 0, to = 0; to < values.length; at += 54) {
    const scale = half[bytes[at + 52] | bytes[at + 53] << 8];
    for (const [from, count, digits] of TERNARY_GROUPS) {
      for (let digit = 0, power = 1; digit < digits; digit++, power *= 3) {
        for (let i = 0; i < count; i++) {
          const fraction = bytes[at + from + i] * power & 255;
          values[to++] = scale * ((fraction * 3 >>> 8) - 1);
        }
      }
    }
  }
};

/** First byte, bytes, and digits of a byte. */
const TERNARY_GROUPS: readonly (readonly [number, number, number])[] = [[0, 32, 5], [32, 16, 5], [48, 4, 4]];

/** Block: 64 bytes of four pairs of bits, f16 scale. Pair k of 32 neighbouring bytes are neighbouring values. Value: scale * (pair - 1). */
export const decodeTQ2_0: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  for (let at = 0, to = 0; to < values.length; at += 66) {
    const scale = half[bytes[at + 64] | bytes[at + 65] << 8];
    for (let part = at; part < at + 64; part += 32) {
      for (let shift = 0; shift < 8; shift += 2) {
        for (let i = 0; i < 32; i++) values[to++] = scale * ((bytes[part + i] >>> shift & 3) - 1);
      }
    }
  }
};
