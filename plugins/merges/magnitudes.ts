/**
 * Selection by magnitude without sorting: the bits of an f32 without its sign are ordered as magnitudes are, so two counts, of their
 * upper 16 bits and of the lower 15 among those at the boundary, find the k-th largest in three passes.
 *
 * @module
 */

const MAGNITUDE = 0x7fffffff;
const LOW_BITS = 15;
const LOW = 2 ** LOW_BITS - 1;
/** Upper 16 bits of 31. */
const BINS = 2 ** 16;

/** The largest entries by magnitude: all whose pattern is above this one, and the first `ties` of those that have it. */
export interface Cut {
  /** Bits of the magnitude; above all that there are where none is taken, -1 where all are. */
  readonly pattern: number;
  readonly ties: number;
}

/** Counts of magnitudes by their upper bits, then by their lower ones among those at a boundary. Memory does not grow with entries. */
export class MagnitudeCounts {
  readonly #high = new Float64Array(BINS);
  readonly #low = new Float64Array(LOW + 1);
  #total = 0;

  /** Magnitudes counted. */
  get total(): number {
    return this.#total;
  }

  /** First pass. */
  countHigh(values: Float32Array): void {
    const bits = bitsOf(values);
    for (let i = 0; i < bits.length; i++) this.#high[(bits[i]! & MAGNITUDE) >>> LOW_BITS]!++;
    this.#total += values.length;
  }

  /** Second pass, for the `count` largest of all. */
  countLow(values: Float32Array, count: number): void {
    const { at } = boundary(this.#high, count);
    const bits = bitsOf(values);
    for (let i = 0; i < bits.length; i++) {
      const pattern = bits[i]! & MAGNITUDE;
      if (pattern >>> LOW_BITS === at) this.#low[pattern & LOW]!++;
    }
  }

  /** Where the `count` largest end, after both passes. */
  cut(count: number): Cut {
    if (count <= 0) return { pattern: MAGNITUDE, ties: 0 };
    if (count >= this.#total) return { pattern: -1, ties: 0 };
    const high = boundary(this.#high, count);
    const low = boundary(this.#low, count - high.above);
    return { pattern: high.at * (LOW + 1) + low.at, ties: count - high.above - low.above };
  }
}

/** The bin that the `count`-th largest is in, and how many are in those above it. */
function boundary(bins: Float64Array, count: number): { at: number; above: number } {
  let [at, above] = [bins.length - 1, 0];
  while (at > 0 && above + bins[at]! < count) above += bins[at--]!;
  return { at, above };
}

function bitsOf(values: Float32Array): Int32Array {
  return new Int32Array(values.buffer, values.byteOffset, values.length);
}

function cutOf(values: Float32Array, count: number): Cut {
  const counts = new MagnitudeCounts();
  counts.countHigh(values);
  counts.countLow(values, count);
  return counts.cut(count);
}

// Which entries are large is as good as random, so a branch on each would be mispredicted often: the sign of a difference of magnitudes,
// spread over all bits, is a mask instead. Equal ones are few.

/** Sets all but the `count` largest magnitudes to 0; of equal ones those that come first stay. */
export function keepLargest(values: Float32Array, count: number): void {
  if (count >= values.length) return;
  const { pattern, ties } = cutOf(values, count);
  const bits = bitsOf(values);
  let tied = 0;
  for (let i = 0; i < bits.length; i++) {
    const difference = (bits[i]! & MAGNITUDE) - pattern;
    bits[i]! &= ~(difference >> 31);
    if (difference === 0 && tied++ >= ties) bits[i] = 0;
  }
}

/** Sets the `count` largest magnitudes to 0; of equal ones those that come first. */
export function dropLargest(values: Float32Array, count: number): void {
  if (count <= 0) return;
  const { pattern, ties } = cutOf(values, count);
  const bits = bitsOf(values);
  let tied = 0;
  for (let i = 0; i < bits.length; i++) {
    const difference = pattern - (bits[i]! & MAGNITUDE);
    bits[i]! &= ~(difference >> 31);
    if (difference === 0 && tied++ < ties) bits[i] = 0;
  }
}

/** Sets magnitudes below that of a pattern to 0. */
export function dropBelow(values: Float32Array, pattern: number): void {
  const bits = bitsOf(values);
  for (let i = 0; i < bits.length; i++) bits[i]! &= ~(((bits[i]! & MAGNITUDE) - pattern) >> 31);
}

/** The magnitude that `count - 1` entries surpass, `count` from 1: the largest is the first. */
export function nthMagnitude(values: Float32Array, count: number): number {
  return magnitudeOf(count >= values.length ? smallestPattern(values) : cutOf(values, count).pattern);
}

/** The f32 that has these bits. */
export function magnitudeOf(pattern: number): number {
  return new Float32Array(Uint32Array.of(pattern).buffer)[0]!;
}

function smallestPattern(values: Float32Array): number {
  return bitsOf(values).reduce((least, bits) => Math.min(least, bits & MAGNITUDE), MAGNITUDE);
}
