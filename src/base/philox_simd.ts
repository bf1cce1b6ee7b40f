/**
 * Philox4x32 of four counters at a time in WebAssembly's vector instructions, which multiply 32 bits by 32 bits into 64; in JavaScript
 * such a product is made of four smaller ones, and a number takes several times as long.
 *
 * @module
 */
import {
  advance,
  get,
  I32,
  i32,
  instantiate,
  PAGE,
  repeat,
  set,
  store,
  V128,
  vector,
  words,
} from "./wasm.ts";

/** Numbers that one call can make: a page of them. */
export const MOST_NUMBERS = PAGE / 4;

/** The function, and where it leaves its numbers. */
export interface PhiloxSimd {
  /**
   * Writes uniform numbers in [0, 1), four for each counter (block, c1, c2, c3), the upper 24 bits of each word, to the beginning of
   * `numbers`.
   *
   * @param groups How many times four counters, from block `first` on; from 1 to `MOST_NUMBERS` / 16
   */
  fill(first: number, groups: number, c1: number, c2: number, c3: number, k0: number, k1: number): void;
  readonly numbers: Float32Array<ArrayBuffer>;
}

let made: PhiloxSimd | null | undefined;

/** The one instance of this program; undefined where there are no vector instructions. */
export function philoxSimd(): PhiloxSimd | undefined {
  if (made === undefined) {
    const module = instantiate({ parameters: 7, locals: [[1, I32], [11, V128]], body: body(), pages: 1 });
    made = module ? { fill: module.run, numbers: new Float32Array(module.memory) } : null;
  }
  return made ?? undefined;
}

const splat = vector(0x11);
const xor = vector(0x51);
const add = vector(0xae);
const productsLow = vector(0xde);
const productsHigh = vector(0xdf);
/** Lanes of two vectors of four words, those of the second numbered from 4. */
const shuffle = (...lanes: number[]) =>
  vector(0x0d, ...lanes.flatMap((lane) => [0, 1, 2, 3].map((byte) => 4 * lane + byte)));

/** Numbers of the locals: parameters, the address, and vectors. */
const [FIRST, GROUPS, C1, C2, C3, K0, K1, ADDRESS] = [0, 1, 2, 3, 4, 5, 6, 7] as const;
const COUNTER = [8, 9, 10, 11] as const;
const KEY = [12, 13] as const;
const [BLOCKS, EVEN_LOW, EVEN_HIGH, ODD_LOW, ODD_HIGH] = [14, 15, 16, 17, 18] as const;

/** One of the ten rounds, of four counters; Salmon et al., SC 2011, section 3.3. */
function round(): number[] {
  const multiplied = (counter: number, by: number, low: number, high: number) => [
    ...[...get(counter), ...words(by, by, by, by), ...productsLow, ...set(low)],
    ...[...get(counter), ...words(by, by, by, by), ...productsHigh, ...set(high)],
  ];
  const lower = (low: number, high: number) => [...get(low), ...get(high), ...shuffle(0, 2, 4, 6)];
  const upper = (low: number, high: number) => [...get(low), ...get(high), ...shuffle(1, 3, 5, 7)];
  const next = (key: number, by: number) => [...get(key), ...words(by, by, by, by), ...add, ...set(key)];
  return [
    ...multiplied(COUNTER[0], 0xd2511f53, EVEN_LOW, EVEN_HIGH),
    ...multiplied(COUNTER[2], 0xcd9e8d57, ODD_LOW, ODD_HIGH),
    ...[...upper(ODD_LOW, ODD_HIGH), ...get(COUNTER[1]), ...xor, ...get(KEY[0]), ...xor, ...set(COUNTER[0])],
    ...[
      ...upper(EVEN_LOW, EVEN_HIGH),
      ...get(COUNTER[3]),
      ...xor,
      ...get(KEY[1]),
      ...xor,
      ...set(COUNTER[2]),
    ],
    ...[...lower(ODD_LOW, ODD_HIGH), ...set(COUNTER[1])],
    ...[...lower(EVEN_LOW, EVEN_HIGH), ...set(COUNTER[3])],
    ...[...next(KEY[0], 0x9e3779b9), ...next(KEY[1], 0xbb67ae85)],
  ];
}

/** Words by counter instead of by place, as numbers, written to the address and the 63 bytes after it. */
function write(): number[] {
  const [low01, low23, high01, high23] = [EVEN_LOW, EVEN_HIGH, ODD_LOW, ODD_HIGH];
  const pair = (a: number, b: number, lanes: number[], to: number) => [
    ...get(a),
    ...get(b),
    ...shuffle(...lanes),
    ...set(to),
  ];
  const number = (a: number, b: number, lanes: number[], at: number) => [
    ...get(ADDRESS),
    ...get(a),
    ...get(b),
    ...shuffle(...lanes),
    // The upper 24 bits, exact as f32, times 2^-24.
    ...[...i32(8), ...vector(0xad), ...vector(0xfa)],
    ...[...words(...[0, 0, 0, 0].map(() => 0x33800000)), ...vector(0xe6)],
    ...store(at),
  ];
  return [
    ...pair(COUNTER[0], COUNTER[1], [0, 4, 1, 5], low01),
    ...pair(COUNTER[2], COUNTER[3], [0, 4, 1, 5], low23),
    ...pair(COUNTER[0], COUNTER[1], [2, 6, 3, 7], high01),
    ...pair(COUNTER[2], COUNTER[3], [2, 6, 3, 7], high23),
    ...number(low01, low23, [0, 1, 4, 5], 0),
    ...number(low01, low23, [2, 3, 6, 7], 16),
    ...number(high01, high23, [0, 1, 4, 5], 32),
    ...number(high01, high23, [2, 3, 6, 7], 48),
  ];
}

function body(): number[] {
  const spread = (from: number, to: number) => [...get(from), ...splat, ...set(to)];
  return [
    ...[...get(FIRST), ...splat, ...words(0, 1, 2, 3), ...add, ...set(BLOCKS)],
    ...repeat(
      GROUPS,
      ...[...get(BLOCKS), ...set(COUNTER[0])],
      ...[...spread(C1, COUNTER[1]), ...spread(C2, COUNTER[2]), ...spread(C3, COUNTER[3])],
      ...[...spread(K0, KEY[0]), ...spread(K1, KEY[1])],
      ...Array.from({ length: 10 }, round).flat(),
      ...write(),
      ...[...get(BLOCKS), ...words(4, 4, 4, 4), ...add, ...set(BLOCKS)],
      ...advance(ADDRESS, 64),
    ),
  ];
}
