/**
 * f32 values to Q4_K and Q6_K. The format says how blocks are read, not how they are found; here it is a search for the least squared
 * error:
 *
 * 1. of each group of 16 or 32 alone: for several trial scales around the one that spans the values, round to numbers, then take the
 *    scale (and minimum) that fit those numbers best, in closed form; keep the best trial;
 * 2. of the block: scales (and minima) become integers times an f16; each group tries the integers next to its own, with its numbers
 *    rounded anew;
 * 3. the f16 are fitted to all numbers of the block once more, and step 2 is done again; the better of both results is kept.
 *
 * @module
 */
import { float32ToHalf, halfToNumber } from "../../dtype.ts";
import { putHalves, type QuantizeBlocks } from "./quantize.ts";

const BLOCK = 256;

/** A number as the f16 that is nearest. */
function asHalf(value: number): number {
  return halfToNumber(float32ToHalf(Float32Array.of(value))[0]);
}

/** The nearest number from 0 to `highest`. */
function numberOf(value: number, highest: number): number {
  return value <= 0 ? 0 : value >= highest ? highest : (value + 0.5) | 0;
}

/** Trial scales: how many steps the span of the values is cut into, beyond the highest number. */
const TRIALS = Float64Array.from({ length: 11 }, (_, i) => -1 + 0.2 * i);

/** Scale and minimum of one group, value = scale * number - minimum with numbers from 0 to 15. */
function fitWithMinimum(values: Float32Array, from: number): [scale: number, minimum: number] {
  let low = 0;
  let high = -Infinity;
  let sum = 0;
  let squares = 0;
  for (let i = from; i < from + 32; i++) {
    low = Math.min(low, values[i]);
    high = Math.max(high, values[i]);
    sum += values[i];
    squares += values[i] * values[i];
  }
  if (high <= low) return [0, -low];
  let best: [number, number] = [(high - low) / 15, -low];
  let least = Infinity;
  for (const more of TRIALS) {
    const inverse = (15 + more) / (high - low);
    let n = 0;
    let nn = 0;
    let nx = 0;
    for (let i = from; i < from + 32; i++) {
      const number = numberOf((values[i] - low) * inverse, 15);
      n += number;
      nn += number * number;
      nx += number * values[i];
    }
    const determinant = 32 * nn - n * n;
    if (determinant <= 0) continue;
    let scale = (32 * nx - n * sum) / determinant;
    let minimum = (n * nx - nn * sum) / determinant;
    if (minimum < 0) {
      minimum = 0;
      scale = nx / nn;
    }
    const error = squares - 2 * scale * nx + 2 * minimum * sum + scale * scale * nn -
      2 * scale * minimum * n +
      32 * minimum * minimum;
    if (error < least && scale >= 0) {
      least = error;
      best = [scale, minimum];
    }
  }
  return best;
}

/** A block of Q4_K being found. */
interface MinimumBlock {
  scale: number;
  minimum: number;
  /** Integers of the eight groups. */
  readonly scales: Uint8Array;
  readonly minima: Uint8Array;
  readonly numbers: Uint8Array;
  error: number;
}

/** The squared error of a group with a scale and a minimum; more than `limit`, and no more than that, where it exceeds it. */
function groupError(
  values: Float32Array,
  from: number,
  scale: number,
  minimum: number,
  limit: number,
): number {
  const inverse = scale === 0 ? 0 : 1 / scale;
  let error = 0;
  for (let i = from; i < from + 32 && error <= limit; i++) {
    const difference = scale * numberOf((values[i] + minimum) * inverse, 15) - minimum - values[i];
    error += difference * difference;
  }
  return error;
}

/** Step 2: integers and numbers for the f16 that are given. */
function roundMinimumBlock(
  values: Float32Array,
  from: number,
  fits: readonly (readonly [number, number])[],
  scale: number,
  minimum: number,
): MinimumBlock {
  const block: MinimumBlock = {
    scale,
    minimum,
    scales: new Uint8Array(8),
    minima: new Uint8Array(8),
    numbers: new Uint8Array(BLOCK),
    error: 0,
  };
  for (let group = 0; group < 8; group++) {
    const [ownScale, ownMinimum] = fits[group];
    const nearScale = scale === 0 ? 0 : Math.round(ownScale / scale);
    const nearMinimum = minimum === 0 ? 0 : Math.round(ownMinimum / minimum);
    // Zeros, where the f16 are too coarse for anything better.
    let least = groupError(values, from + 32 * group, 0, 0, Infinity);
    for (let s = Math.max(0, nearScale - 1); s <= Math.min(63, nearScale + 1); s++) {
      for (let m = Math.max(0, nearMinimum - 1); m <= Math.min(63, nearMinimum + 1); m++) {
        const error = groupError(values, from + 32 * group, scale * s, minimum * m, least);
        if (error >= least) continue;
        least = error;
        block.scales[group] = s;
        block.minima[group] = m;
      }
    }
    block.error += least;
    const own = scale * block.scales[group];
    const inverse = own === 0 ? 0 : 1 / own;
    const below = minimum * block.minima[group];
    for (let i = 32 * group; i < 32 * group + 32; i++) {
      block.numbers[i] = numberOf((values[from + i] + below) * inverse, 15);
    }
  }
  return block;
}

/** Step 3: the f16 that fit a block's numbers best. */
function refitMinimumBlock(
  values: Float32Array,
  from: number,
  block: MinimumBlock,
): [number, number] | undefined {
  let [aa, ab, bb, ax, bx] = [0, 0, 0, 0, 0];
  for (let i = 0; i < BLOCK; i++) {
    const a = block.scales[i >> 5] * block.numbers[i];
    const b = -block.minima[i >> 5];
    aa += a * a;
    ab += a * b;
    bb += b * b;
    ax += a * values[from + i];
    bx += b * values[from + i];
  }
  const determinant = aa * bb - ab * ab;
  if (determinant <= 1e-9 * aa * bb) return bb === 0 && aa > 0 ? [asHalf(ax / aa), 0] : undefined;
  const scale = (bb * ax - ab * bx) / determinant;
  const minimum = (aa * bx - ab * ax) / determinant;
  return scale > 0 && minimum > 0 ? [asHalf(scale), asHalf(minimum)] : undefined;
}

/** Q4_K: eight groups of 32, numbers of four bits, scales and minima of six. */
export const quantizeQ4K: QuantizeBlocks = (values) => {
  const blocks = values.length / BLOCK;
  const bytes = new Uint8Array(blocks * 144);
  const [scales, minima] = [new Float32Array(blocks), new Float32Array(blocks)];
  for (let index = 0; index < blocks; index++) {
    const from = index * BLOCK;
    const fits = Array.from({ length: 8 }, (_, group) => fitWithMinimum(values, from + 32 * group));
    const largest = (which: 0 | 1) => fits.reduce((most, fit) => Math.max(most, fit[which]), 0);
    let best = roundMinimumBlock(values, from, fits, asHalf(largest(0) / 63), asHalf(largest(1) / 63));
    const refitted = refitMinimumBlock(values, from, best);
    if (refitted) {
      const second = roundMinimumBlock(values, from, fits, ...refitted);
      if (second.error < best.error) best = second;
    }
    scales[index] = best.scale;
    minima[index] = best.minimum;
    packMinimumBlock(bytes, index * 144 + 4, best);
  }
  putHalves(bytes, 144, 0, scales);
  putHalves(bytes, 144, 2, minima);
  return bytes;
};

/** What `scaleAndMinimum` takes apart, then the nibbles. */
function packMinimumBlock(bytes: Uint8Array, at: number, { scales, minima, numbers }: MinimumBlock): void {
  for (let group = 0; group < 4; group++) {
    bytes[at + group] = scales[group] | scales[group + 4] >>> 4 << 6;
    bytes[at + 4 + group] = minima[group] | minima[group + 4] >>> 4 << 6;
    bytes[at + 8 + group] = scales[group + 4] & 15 | (minima[group + 4] & 15) << 4;
  }
  for (let pair = 0; pair < 4; pair++) {
    for (let i = 0; i < 32; i++) {
      bytes[at + 12 + 32 * pair + i] = numbers[64 * pair + i] | numbers[64 * pair + 32 + i] << 4;
    }
  }
}

/** The scale of one group of 16, value = scale * number with numbers from -32 to 31. */
function fitSymmetric(values: Float32Array, from: number): number {
  let largest = 0;
  for (let i = from; i < from + 16; i++) if (Math.abs(values[i]) > Math.abs(largest)) largest = values[i];
  if (largest === 0) return 0;
  let best = largest / -32;
  let most = 0;
  for (const more of TRIALS) {
    const inverse = (32 + more) / -largest;
    let nn = 0;
    let nx = 0;
    for (let i = from; i < from + 16; i++) {
      const number = numberOf(values[i] * inverse + 32, 63) - 32;
      nn += number * number;
      nx += number * values[i];
    }
    // The squared error is that of zeros less this.
    if (nn > 0 && nx * nx / nn > most) {
      most = nx * nx / nn;
      best = nx / nn;
    }
  }
  return best;
}

/** A block of Q6_K being found. */
interface SymmetricBlock {
  scale: number;
  readonly scales: Int8Array;
  readonly numbers: Int8Array;
  error: number;
}

function roundSymmetricBlock(
  values: Float32Array,
  from: number,
  fits: Float64Array,
  scale: number,
): SymmetricBlock {
  const block = { scale, scales: new Int8Array(16), numbers: new Int8Array(BLOCK), error: 0 };
  for (let group = 0; group < 16; group++) {
    const near = scale === 0 ? 0 : Math.round(fits[group] / scale);
    let least = 0;
    for (let i = from + 16 * group; i < from + 16 * group + 16; i++) least += values[i] * values[i];
    for (let s = Math.max(-128, near - 1); s <= Math.min(127, near + 1); s++) {
      const own = scale * s;
      const inverse = own === 0 ? 0 : 1 / own;
      let error = 0;
      for (let i = from + 16 * group; i < from + 16 * group + 16; i++) {
        const difference = own * (numberOf(values[i] * inverse + 32, 63) - 32) - values[i];
        error += difference * difference;
      }
      if (error >= least) continue;
      least = error;
      block.scales[group] = s;
    }
    block.error += least;
    const own = scale * block.scales[group];
    const inverse = own === 0 ? 0 : 1 / own;
    for (let i = 16 * group; i < 16 * group + 16; i++) {
      block.numbers[i] = numberOf(values[from + i] * inverse + 32, 63) - 32;
    }
  }
  return block;
}

/** Q6_K: sixteen groups of 16, numbers of six bits, scales of eight. */
export const quantizeQ6K: QuantizeBlocks = (values) => {
  const blocks = values.length / BLOCK;
  const bytes = new Uint8Array(blocks * 210);
  const scales = new Float32Array(blocks);
  for (let index = 0; index < blocks; index++) {
    const from = index * BLOCK;
    const fits = Float64Array.from({ length: 16 }, (_, group) => fitSymmetric(values, from + 16 * group));
    const largest = fits.reduce((most, fit) => Math.abs(fit) > Math.abs(most) ? fit : most, 0);
    let best = roundSymmetricBlock(values, from, fits, asHalf(largest / -128));
    let [nn, nx] = [0, 0];
    for (let i = 0; i < BLOCK; i++) {
      const number = best.scales[i >> 4] * best.numbers[i];
      nn += number * number;
      nx += number * values[from + i];
    }
    if (nn > 0) {
      const second = roundSymmetricBlock(values, from, fits, asHalf(nx / nn));
      if (second.error < best.error) best = second;
    }
    scales[index] = best.scale;
    packSymmetricBlock(bytes, index * 210, best);
  }
  putHalves(bytes, 210, 208, scales);
  return bytes;
};

function packSymmetricBlock(bytes: Uint8Array, at: number, { scales, numbers }: SymmetricBlock): void {
  for (let half = 0; half < 2; half++) {
    for (let i = 0; i < 32; i++) {
      const [a, b, c, d] = [0, 32, 64, 96].map((place) => numbers[128 * half + place + i] + 32);
      bytes[at + 64 * half + i] = a & 15 | (c & 15) << 4;
      bytes[at + 64 * half + 32 + i] = b & 15 | (d & 15) << 4;
      bytes[at + 128 + 32 * half + i] = a >>> 4 | b >>> 4 << 2 | c >>> 4 << 4 | d >>> 4 << 6;
    }
  }
  bytes.set(new Uint8Array(scales.buffer), at + 192);
}
