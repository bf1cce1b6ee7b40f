/**
 * Philox4x32 of four counters at a time in WebAssembly's vector instructions, which multiply 32 bits by 32 bits into 64; in JavaScript
 * such a product is made of four smaller ones, and a number takes several times as long.
 *
 * The module is put together here: it is one function without branches but for its loop.
 *
 * @module
 */

/** Bytes of the module's memory: one page. */
const PAGE = 1 << 16;

/** Numbers that one call can make. */
export const MOST_NUMBERS = PAGE / 4;

/** The function, and where it leaves its numbers. */
export interface PhiloxSimd {
  /**
   * Writes uniform numbers in [0, 1), four for each counter (block, c1, c2, c3), the upper 24 bits of each word, to the beginning of
   * `numbers`.
   *
   * @param groups How many times four counters, from block `first` on; at most `MOST_NUMBERS` / 16
   */
  fill(first: number, groups: number, c1: number, c2: number, c3: number, k0: number, k1: number): void;
  readonly numbers: Float32Array<ArrayBuffer>;
}

let made: PhiloxSimd | null | undefined;

/** The one instance of this program; undefined where WebAssembly, or its vector instructions, are missing or forbidden. */
export function philoxSimd(): PhiloxSimd | undefined {
  if (made === undefined) made = instantiate();
  return made ?? undefined;
}

function instantiate(): PhiloxSimd | null {
  try {
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(assemble()));
    return {
      fill: exports.fill as PhiloxSimd["fill"],
      numbers: new Float32Array((exports.memory as WebAssembly.Memory).buffer as ArrayBuffer),
    };
  } catch {
    // A page may forbid it, an engine may not have it.
    return null;
  }
}

// Instructions and sections as the WebAssembly core specification 2.0, chapter 5, numbers them.

const [I32, V128] = [0x7f, 0x7b];

/** An unsigned number in LEB128. */
function unsigned(x: number): number[] {
  return x < 0x80 ? [x] : [x & 0x7f | 0x80, ...unsigned(x >>> 7)];
}

/** A signed one of 32 bits. */
function signed(x: number): number[] {
  const low = x & 0x7f;
  const rest = x >> 7;
  return rest === -(low >> 6) ? [low] : [low | 0x80, ...signed(rest)];
}

const get = (local: number) => [0x20, ...unsigned(local)];
const set = (local: number) => [0x21, ...unsigned(local)];
const i32 = (x: number) => [0x41, ...signed(x | 0)];
const i32Add = [0x6a];
const i32Subtract = [0x6b];
const vector = (operation: number, ...immediates: number[]) => [0xfd, ...unsigned(operation), ...immediates];
const splat = vector(0x11);
const xor = vector(0x51);
const add = vector(0xae);
const productsLow = vector(0xde);
const productsHigh = vector(0xdf);
/** Lanes of two vectors of four words, those of the second numbered from 4. */
const shuffle = (...lanes: number[]) =>
  vector(0x0d, ...lanes.flatMap((lane) => [0, 1, 2, 3].map((byte) => 4 * lane + byte)));
const words = (...values: number[]) =>
  vector(0x0c, ...values.flatMap((x) => [0, 8, 16, 24].map((bits) => x >>> bits & 0xff)));
const section = (id: number, ...bytes: number[]) => [id, ...unsigned(bytes.length), ...bytes];
const named = (name: string, ...what: number[]) => [name.length, ...new TextEncoder().encode(name), ...what];

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
    ...vector(0x0b, 4, ...unsigned(at)),
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

function assemble(): Uint8Array<ArrayBuffer> {
  const spread = (from: number, to: number) => [...get(from), ...splat, ...set(to)];
  const body = [
    ...[2, 1, I32, 11, V128],
    ...[...get(FIRST), ...splat, ...words(0, 1, 2, 3), ...add, ...set(BLOCKS)],
    // loop: at least one group, again while groups are left
    ...[0x03, 0x40],
    ...[...get(BLOCKS), ...set(COUNTER[0])],
    ...[...spread(C1, COUNTER[1]), ...spread(C2, COUNTER[2]), ...spread(C3, COUNTER[3])],
    ...[...spread(K0, KEY[0]), ...spread(K1, KEY[1])],
    ...Array.from({ length: 10 }, round).flat(),
    ...write(),
    ...[...get(BLOCKS), ...words(4, 4, 4, 4), ...add, ...set(BLOCKS)],
    ...[...get(ADDRESS), ...i32(64), ...i32Add, ...set(ADDRESS)],
    ...[...get(GROUPS), ...i32(1), ...i32Subtract, 0x22, GROUPS, 0x0d, 0],
    0x0b,
    0x0b,
  ];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, 1, 0x60, 7, ...new Array(7).fill(I32), 0),
    ...section(3, 1, 0),
    ...section(5, 1, 0, 1),
    ...section(7, 2, ...named("memory", 2, 0), ...named("fill", 0, 0)),
    ...section(10, 1, ...unsigned(body.length), ...body),
  ]);
}
