/**
 * "I" types, blocks of 256 values that name points of a lattice, eight or four values each: IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S,
 * IQ1_S, IQ1_M. Signs lie beside the points, but in the last two, whose levels have them.
 *
 * @module
 */
import { halfValues } from "../../dtype.ts";
import { grid1024, grid2048, grid256, grid512, quads256, quads512 } from "./grids.ts";
import type { DecodeBlocks } from "./plain.ts";

/** Eight signs from seven: the last makes their number even. */
const EVEN_SIGNS = Uint8Array.from({ length: 128 }, (_, seven) => {
  let parity = seven;
  for (const shift of [4, 2, 1]) parity ^= parity >> shift;
  return seven | (parity & 1) << 7;
});

/** `count` values of a point; bit i of `signs` makes value i negative. */
function place(
  values: Float32Array,
  to: number,
  scale: number,
  grid: Int8Array,
  point: number,
  count: number,
  signs: number,
): void {
  const from = point * count;
  for (let i = 0; i < count; i++) {
    // Signs are as good as random: a branch would be guessed wrong half of the time.
    const minus = -(signs >>> i & 1);
    values[to + i] = scale * ((grid[from + i] ^ minus) - minus);
  }
}

function word(bytes: Uint8Array, at: number): number {
  return (bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16 | bytes[at + 3] << 24) >>> 0;
}

/**
 * Block: f16 scale; of each group of 32 four bytes of points and a word of four times seven signs below a scale of four bits.
 * Scale of a group: scale * (1/2 + number) / 4.
 */
export const decodeIQ2_XXS: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  const grid = grid256();
  for (let at = 0, to = 0; to < values.length; at += 66) {
    const scale = half[bytes[at] | bytes[at + 1] << 8];
    for (let from = at + 2; from < at + 66; from += 8) {
      const signs = word(bytes, from + 4);
      const own = scale * (0.5 + (signs >>> 28)) * 0.25;
      for (let i = 0; i < 4; i++, to += 8) {
        place(values, to, own, grid, bytes[from + i], 8, EVEN_SIGNS[signs >>> 7 * i & 127]);
      }
    }
  }
};

/** Block: f16 scale, 32 times a u16 of a point below seven signs, 16 scales as nibbles, each for 16 values, used as in IQ2_XXS. */
export const decodeIQ2_XS: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  const grid = grid512();
  for (let at = 0, to = 0; to < values.length; at += 74) {
    const scale = half[bytes[at] | bytes[at + 1] << 8];
    for (let i = 0; i < 32; i++, to += 8) {
      const own = scale * (0.5 + (bytes[at + 66 + (i >> 2)] >>> (i >> 1 & 1) * 4 & 15)) * 0.25;
      const both = bytes[at + 2 + 2 * i] | bytes[at + 3 + 2 * i] << 8;
      place(values, to, own, grid, both & 511, 8, EVEN_SIGNS[both >>> 9]);
    }
  }
};

/** Block: f16 scale, 32 bytes of points, 32 bytes of eight signs, 8 bytes of the points' upper pairs of bits, scales as in IQ2_XS. */
export const decodeIQ2_S: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  const grid = grid1024();
  for (let at = 0, to = 0; to < values.length; at += 82) {
    const scale = half[bytes[at] | bytes[at + 1] << 8];
    for (let i = 0; i < 32; i++, to += 8) {
      const own = scale * (0.5 + (bytes[at + 74 + (i >> 2)] >>> (i >> 1 & 1) * 4 & 15)) * 0.25;
      const point = bytes[at + 2 + i] | (bytes[at + 66 + (i >> 2)] >>> 2 * (i & 3) & 3) << 8;
      place(values, to, own, grid, point, 8, bytes[at + 34 + i]);
    }
  }
};

/**
 * Block: f16 scale, 64 bytes of points of four values, eight words of signs and a scale as in IQ2_XXS.
 * Scale of a group: scale * (1/2 + number) / 2.
 */
export const decodeIQ3_XXS: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  const grid = quads256();
  for (let at = 0, to = 0; to < values.length; at += 98) {
    const scale = half[bytes[at] | bytes[at + 1] << 8];
    for (let group = 0; group < 8; group++) {
      const signs = word(bytes, at + 66 + 4 * group);
      const own = scale * (0.5 + (signs >>> 28)) * 0.5;
      for (let i = 0; i < 4; i++, to += 8) {
        const eight = EVEN_SIGNS[signs >>> 7 * i & 127];
        const from = at + 2 + 8 * group + 2 * i;
        place(values, to, own, grid, bytes[from], 4, eight);
        place(values, to + 4, own, grid, bytes[from + 1], 4, eight >>> 4);
      }
    }
  }
};

/**
 * Block: f16 scale, 64 bytes of points of four values, 8 bytes of their ninth bits, 32 bytes of eight signs, 8 scales of 32 values as
 * nibbles. Scale of a group: scale * (1 + 2 * number).
 */
export const decodeIQ3_S: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  const grid = quads512();
  for (let at = 0, to = 0; to < values.length; at += 110) {
    const scale = half[bytes[at] | bytes[at + 1] << 8];
    for (let i = 0; i < 64; i++, to += 4) {
      const own = scale * (1 + 2 * (bytes[at + 106 + (i >> 4)] >>> (i >> 3 & 1) * 4 & 15));
      const point = bytes[at + 2 + i] | (bytes[at + 66 + (i >> 3)] >>> (i & 7) & 1) << 8;
      place(values, to, own, grid, point, 4, bytes[at + 74 + (i >> 1)] >>> (i & 1) * 4);
    }
  }
};

/**
 * Block: f16 scale, 32 bytes of points, eight times a u16 of their upper three bits, a scale of three bits and the sign of a shift.
 * Value: scale * (2 * number + 1) * (level + or - 1/8).
 */
export const decodeIQ1_S: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  const grid = grid2048();
  for (let at = 0, to = 0; to < values.length; at += 50) {
    const scale = half[bytes[at] | bytes[at + 1] << 8];
    for (let group = 0; group < 8; group++) {
      const upper = bytes[at + 34 + 2 * group] | bytes[at + 35 + 2 * group] << 8;
      const own = scale * (2 * (upper >>> 12 & 7) + 1);
      const shift = upper & 0x8000 ? -0.125 : 0.125;
      for (let i = 0; i < 4; i++, to += 8) {
        const point = bytes[at + 2 + 4 * group + i] | (upper >>> 3 * i & 7) << 8;
        for (let j = 0; j < 8; j++) values[to + j] = own * (grid[8 * point + j] + shift);
      }
    }
  }
};

/**
 * Block: 32 bytes of points, 16 bytes of two nibbles, each of a point's upper three bits and the sign of its shift, 4 times a u16 of four
 * scales of three bits, each for 16 values. The highest nibbles of those u16 are the f16 scale, the lowest one first. Values as in IQ1_S.
 */
export const decodeIQ1_M: DecodeBlocks = (bytes, values) => {
  const half = halfValues();
  const grid = grid2048();
  for (let at = 0, to = 0; to < values.length; at += 56) {
    let bits = 0;
    for (let i = 0; i < 4; i++) bits |= bytes[at + 49 + 2 * i] >>> 4 << 4 * i;
    const scale = half[bits];
    for (let i = 0; i < 32; i++, to += 8) {
      const four = bytes[at + 48 + 2 * (i >> 3)] | bytes[at + 49 + 2 * (i >> 3)] << 8;
      const own = scale * (2 * (four >>> 3 * (i >> 1 & 3) & 7) + 1);
      const upper = bytes[at + 32 + (i >> 1)] >>> (i & 1) * 4;
      const shift = upper & 8 ? -0.125 : 0.125;
      const point = bytes[at + i] | (upper & 7) << 8;
      for (let j = 0; j < 8; j++) values[to + j] = own * (grid[8 * point + j] + shift);
    }
  }
};
