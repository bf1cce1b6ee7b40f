/**
 * Counter-based random numbers: a number is a pure function of a key and a counter, so there is no state to save and any step can be
 * computed without those before it.
 *
 * @module
 */
import { MOST_NUMBERS, philoxSimd } from "./philox_simd.ts";

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;

/** Upper 32 bits of the 64-bit product of two 32-bit integers. */
function multiplyHigh(a: number, b: number): number {
  const [aLow, aHigh] = [a & 0xffff, a >>> 16];
  const [bLow, bHigh] = [b & 0xffff, b >>> 16];
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = (middle & 0xffff) + aLow * bHigh;
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(carry / 0x10000)) >>> 0;
}

/**
 * Philox4x32 with 10 rounds: four random 32-bit integers for a counter of four and a key of two 32-bit integers.
 *
 * Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3.
 */
export function philox4x32(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(MULTIPLIER_0, c0 >>> 0);
    const low0 = Math.imul(MULTIPLIER_0, c0);
    const high1 = multiplyHigh(MULTIPLIER_1, c2 >>> 0);
    const low1 = Math.imul(MULTIPLIER_1, c2);
    [c0, c1, c2, c3] = [high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0];
    k0 = (k0 + WEYL_0) | 0;
    k1 = (k1 + WEYL_1) | 0;
  }
  return [c0 >>> 0, c1 >>> 0, c2 >>> 0, c3 >>> 0];
}

/**
 * Uniform numbers in [0, 1), the upper 24 bits of each word that {@linkcode philox4x32} gives for the counters (block, ...rest): number i
 * is word i mod 4 of block floor(i / 4).
 *
 * @param first The first number that is wanted
 */
export function uniformNumbers(
  first: number,
  count: number,
  rest: readonly [number, number, number],
  key: readonly [number, number],
): Float32Array<ArrayBuffer> {
  const simd = philoxSimd();
  if (!simd) return plainUniformNumbers(first, count, rest, key);
  const firstBlock = Math.floor(first / 4);
  const skipped = first - 4 * firstBlock;
  const numbers = new Float32Array(count);
  for (let at = -skipped; at < count; at += MOST_NUMBERS) {
    const wanted = Math.min(MOST_NUMBERS, count - at);
    simd.fill(firstBlock + (at + skipped) / 4, Math.ceil(wanted / 16), ...rest, ...key);
    numbers.set(simd.numbers.subarray(Math.max(0, -at), wanted), Math.max(0, at));
  }
  return numbers;
}

/**
 * The same in plain JavaScript, for where vector instructions are missing. Ten times as fast as asking for one block after another, since
 * nothing is allocated.
 */
export function plainUniformNumbers(
  first: number,
  count: number,
  rest: readonly [number, number, number],
  key: readonly [number, number],
): Float32Array<ArrayBuffer> {
  const firstBlock = Math.floor(first / 4);
  const blocks = Math.ceil((first + count) / 4) - firstBlock;
  const numbers = new Float32Array(4 * blocks);
  const scale = 2 ** -24;
  const [rest0, rest1, rest2] = rest;
  const [key0, key1] = key;
  for (let block = 0; block < blocks; block++) {
    let c0 = (firstBlock + block) | 0, c1 = rest0 | 0, c2 = rest1 | 0, c3 = rest2 | 0;
    let k0 = key0 | 0, k1 = key1 | 0;
    for (let round = 0; round < 10; round++) {
      // multiplyHigh() of the two multipliers, whose halves are 0xd251 1f53 and 0xcd9e 8d57, written out
      // without arrays, which would cost four times the arithmetic.
      const low0 = c0 & 0xffff, high0 = c0 >>> 16;
      const middle0 = high0 * 0x1f53 + ((low0 * 0x1f53) >>> 16);
      const carry0 = (middle0 & 0xffff) + low0 * 0xd251;
      const upper0 = high0 * 0xd251 + (middle0 >>> 16) + (carry0 >>> 16);
      const low1 = c2 & 0xffff, high1 = c2 >>> 16;
      const middle1 = high1 * 0x8d57 + ((low1 * 0x8d57) >>> 16);
      const carry1 = (middle1 & 0xffff) + low1 * 0xcd9e;
      const upper1 = high1 * 0xcd9e + (middle1 >>> 16) + (carry1 >>> 16);
      const lower0 = Math.imul(MULTIPLIER_0, c0), lower1 = Math.imul(MULTIPLIER_1, c2);
      c0 = upper1 ^ c1 ^ k0;
      c1 = lower1;
      c2 = upper0 ^ c3 ^ k1;
      c3 = lower0;
      k0 = (k0 + WEYL_0) | 0;
      k1 = (k1 + WEYL_1) | 0;
    }
    numbers[4 * block] = (c0 >>> 8) * scale;
    numbers[4 * block + 1] = (c1 >>> 8) * scale;
    numbers[4 * block + 2] = (c2 >>> 8) * scale;
    numbers[4 * block + 3] = (c3 >>> 8) * scale;
  }
  const skipped = first - 4 * firstBlock;
  return skipped === 0 && numbers.length === count ? numbers : numbers.slice(skipped, skipped + count);
}

/** Splits a whole number from 0 to 2^53 - 1 into its low and high 32 bits, low first. */
export function splitSeed(seed: number): [number, number] {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new RangeError(`a seed must be a whole number from 0 to ${Number.MAX_SAFE_INTEGER}, not ${seed}`);
  }
  return [seed >>> 0, Math.floor(seed / 2 ** 32)];
}

/**
 * The first two words of {@linkcode philox4x32} in `words`: nothing is allocated, which makes it five times as fast.
 *
 * @param words u32 [2]
 */
function philoxPair(
  words: Uint32Array,
  [start0, start1, start2, start3]: readonly [number, number, number, number],
  key0: number,
  key1: number,
): void {
  let c0 = start0 | 0, c1 = start1 | 0, c2 = start2 | 0, c3 = start3 | 0;
  let k0 = key0 | 0, k1 = key1 | 0;
  for (let round = 0; round < 10; round++) {
    // As in plainUniformNumbers().
    const low0 = c0 & 0xffff, high0 = c0 >>> 16;
    const middle0 = high0 * 0x1f53 + ((low0 * 0x1f53) >>> 16);
    const carry0 = (middle0 & 0xffff) + low0 * 0xd251;
    const upper0 = high0 * 0xd251 + (middle0 >>> 16) + (carry0 >>> 16);
    const low1 = c2 & 0xffff, high1 = c2 >>> 16;
    const middle1 = high1 * 0x8d57 + ((low1 * 0x8d57) >>> 16);
    const carry1 = (middle1 & 0xffff) + low1 * 0xcd9e;
    const upper1 = high1 * 0xcd9e + (middle1 >>> 16) + (carry1 >>> 16);
    const lower0 = Math.imul(MULTIPLIER_0, c0), lower1 = Math.imul(MULTIPLIER_1, c2);
    c0 = upper1 ^ c1 ^ k0;
    c1 = lower1;
    c2 = upper0 ^ c3 ^ k1;
    c3 = lower0;
    k0 = (k0 + WEYL_0) | 0;
    k1 = (k1 + WEYL_1) | 0;
  }
  words[0] = c0;
  words[1] = c1;
}

/** Last counter word of the numbers that order samples; other users of the same seed take another one. */
const SITE_ORDER = 0x6f726472;

/**
 * The order of `count` samples in an epoch: a Fisher-Yates shuffle whose draws depend on (seed, epoch, position) alone.
 *
 * @param seed whole number from 0 to 2^53 - 1
 * @param epoch whole number from 0
 * @param set number below 2048 of one of several sets, which have orders of their own
 */
export function permutation(count: number, seed: number, epoch: number, set = 0): Uint32Array {
  const order = new Uint32Array(count);
  for (let i = 0; i < count; i++) order[i] = i;
  const [key0, key1] = splitSeed(seed);
  const words = new Uint32Array(2);
  const [epochLow, high] = splitSeed(epoch);
  // An epoch has 53 bits, so the set has the upper 11 of 64.
  const epochHigh = (high | set << 21) >>> 0;
  for (let i = count - 1; i > 0; i--) {
    philoxPair(words, [i, epochLow, epochHigh, SITE_ORDER], key0, key1);
    const [a, b] = [words[0]!, words[1]!];
    // 53 random bits as a number in [0, 1); with at most 2^32 samples the bias of the product is below 2^-21.
    const unit = (a * 2 ** 21 + (b >>> 11)) / 2 ** 53;
    const j = Math.floor(unit * (i + 1));
    const last = order[i]!;
    order[i] = order[j]!;
    order[j] = last;
  }
  return order;
}
