/**
 * The innermost part of a product of matrices: four rows against four rows, summed in f64 along their length. In WebAssembly's vector
 * instructions where there are any, else in JavaScript; either way each sum is taken in the same order, so the numbers are the same.
 *
 * @module
 */
import {
  advance,
  get,
  I32,
  instantiate,
  load,
  PAGE,
  repeat,
  set,
  store,
  V128,
  vector,
  words,
} from "../base/wasm.ts";

/** Rows of either side in a tile. */
export const TILE = 4;
/** Columns that are summed over at once. */
export const DEPTH = 256;
/** Rows of b that are worked on at once: packed with DEPTH columns they stay in the second cache. */
export const BREADTH = 64;

/** Memory for operands and sums, and what goes over it. */
export interface Tiles {
  /** [depth, TILE]: four rows beside each other. */
  readonly a: Float64Array;
  /** [tiles, depth, TILE] */
  readonly b: Float64Array;
  /** [tiles, TILE, TILE]: by tile, by row of a, by row of b. */
  readonly sums: Float64Array;
  /** Writes the sums of so many tiles of b, at least one, of a depth that is at least one. */
  run(depth: number, tiles: number): void;
}

let made: Tiles | undefined;

/** The one instance of this program: what is in it stays until the next product. */
export function tiles(): Tiles {
  return made ??= vectorTiles() ?? plainTiles();
}

const [A, B, SUMS] = [TILE * DEPTH, BREADTH * DEPTH, BREADTH * TILE];

/** In plain JavaScript. */
export function plainTiles(): Tiles {
  const [a, b, sums] = [A, B, SUMS].map((length) => new Float64Array(length)) as [
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  return {
    ...{ a, b, sums },
    run(depth, tiles) {
      for (let tile = 0; tile < tiles; tile++) plainTile(a, b, tile * TILE * depth, depth, sums, tile);
    },
  };
}

function plainTile(
  a: Float64Array,
  b: Float64Array,
  bAt: number,
  depth: number,
  sums: Float64Array,
  tile: number,
): void {
  let c00 = 0, c01 = 0, c02 = 0, c03 = 0;
  let c10 = 0, c11 = 0, c12 = 0, c13 = 0;
  let c20 = 0, c21 = 0, c22 = 0, c23 = 0;
  let c30 = 0, c31 = 0, c32 = 0, c33 = 0;
  for (let p = 0, q = bAt; p < TILE * depth; p += TILE, q += TILE) {
    const x0 = a[p]!, x1 = a[p + 1]!, x2 = a[p + 2]!, x3 = a[p + 3]!;
    const y0 = b[q]!, y1 = b[q + 1]!, y2 = b[q + 2]!, y3 = b[q + 3]!;
    c00 += x0 * y0, c01 += x0 * y1, c02 += x0 * y2, c03 += x0 * y3;
    c10 += x1 * y0, c11 += x1 * y1, c12 += x1 * y2, c13 += x1 * y3;
    c20 += x2 * y0, c21 += x2 * y1, c22 += x2 * y2, c23 += x2 * y3;
    c30 += x3 * y0, c31 += x3 * y1, c32 += x3 * y2, c33 += x3 * y3;
  }
  const found = [c00, c01, c02, c03, c10, c11, c12, c13, c20, c21, c22, c23, c30, c31, c32, c33];
  sums.set(found, tile * TILE * TILE);
}

/** Numbers of the locals: parameters, addresses, a count, and vectors. */
const [DEPTH_GIVEN, TILES, FROM_A, FROM_B, TO, LEFT, LOW, HIGH, ONE, FIRST_SUM] = [
  0,
  1,
  2,
  3,
  4,
  5,
  6,
  7,
  8,
  9,
];

/** In vector instructions, two sums each; undefined where there are none. */
export function vectorTiles(): Tiles | undefined {
  const bytes = 8 * (A + B + SUMS);
  const module = instantiate({
    parameters: 2,
    locals: [[4, I32], [3 + 2 * TILE, V128]],
    body: body(),
    pages: Math.ceil(bytes / PAGE),
  });
  return module && {
    a: new Float64Array(module.memory, 0, A),
    b: new Float64Array(module.memory, 8 * A, B),
    sums: new Float64Array(module.memory, 8 * (A + B), SUMS),
    run: module.run,
  };
}

function body(): number[] {
  const splatAt = (offset: number) => vector(0x0a, 3, offset);
  const [times, plus] = [vector(0xf2), vector(0xf0)];
  const sums = Array.from({ length: 2 * TILE }, (_, i) => FIRST_SUM! + i);
  const added = (sum: number, y: number) => [
    ...[...get(sum), ...get(ONE!), ...get(y), ...times, ...plus, ...set(sum)],
  ];
  return [
    ...advance(FROM_B!, 8 * A),
    ...advance(TO!, 8 * (A + B)),
    ...repeat(
      TILES!,
      ...sums.flatMap((sum) => [...words(0, 0, 0, 0), ...set(sum)]),
      ...[0x41, 0, ...set(FROM_A!)],
      ...[...get(DEPTH_GIVEN!), ...set(LEFT!)],
      ...repeat(
        LEFT!,
        ...[...get(FROM_B!), ...load(0), ...set(LOW!)],
        ...[...get(FROM_B!), ...load(16), ...set(HIGH!)],
        ...Array.from({ length: TILE }, (_, row) => [
          ...[...get(FROM_A!), ...splatAt(8 * row), ...set(ONE!)],
          ...added(sums[2 * row]!, LOW!),
          ...added(sums[2 * row + 1]!, HIGH!),
        ]).flat(),
        ...advance(FROM_A!, 8 * TILE),
        ...advance(FROM_B!, 8 * TILE),
      ),
      ...sums.flatMap((sum, i) => [...get(TO!), ...get(sum), ...store(16 * i)]),
      ...advance(TO!, 8 * TILE * TILE),
    ),
  ];
}
