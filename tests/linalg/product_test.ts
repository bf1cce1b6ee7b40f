// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { timesTransposed } from "../../src/linalg/product.ts";
import { BREADTH, DEPTH, plainTiles, TILE, type Tiles, vectorTiles } from "../../src/linalg/tiles.ts";
import { assertWithin, randomArray } from "../tensor/harness.ts";

const SIZES = [[1, 1, 1], [5, 300, 7], [TILE + 1, DEPTH, BREADTH + 1], [
  67,
  DEPTH + 1,
  2 * BREADTH - 1,
]] as const;

for (const [m, k, n] of SIZES) {
  Deno.test(`timesTransposed() of [${m}, ${k}] and [${n}, ${k}] is the product, and its half the same`, () => {
    const [a, b] = [m * k, n * k].map((count, i) => Float64Array.from(randomArray(count, i + 1)));
    const expected = Float64Array.from({ length: m * n }, (_, at) => {
      const [i, j] = [Math.floor(at / n), at % n];
      let sum = 0;
      for (let p = 0; p < k; p++) sum += a![i * k + p]! * b![j * k + p]!;
      return sum;
    });
    assertWithin(timesTransposed(a!, b!, [m, k, n]), expected, 1e-13);
    assertEquals(timesTransposed(a!, a!, [m, k, m], true), timesTransposed(a!, a!, [m, k, m]));
  });
}

/** The sums of so many tiles of random rows. */
function sumsOf(tiles: Tiles, depth: number, count: number): number[] {
  tiles.sums.fill(NaN);
  tiles.a.set(randomArray(TILE * depth, 3));
  tiles.b.set(randomArray(TILE * depth * count, 4));
  tiles.run(depth, count);
  return [...tiles.sums];
}

Deno.test("tiles in vector instructions are those of plain JavaScript to the last bit", () => {
  const vectors = vectorTiles();
  assert(vectors, "this engine has WebAssembly with vectors");
  for (const [depth, count] of [[1, 1], [3, 2], [DEPTH, 5], [DEPTH, BREADTH / TILE]] as const) {
    const found = sumsOf(vectors, depth, count);
    assertEquals(found, sumsOf(plainTiles(), depth, count));
    assert(found.slice(count * TILE * TILE).every(Number.isNaN), "it writes no more than it should");
  }
});
