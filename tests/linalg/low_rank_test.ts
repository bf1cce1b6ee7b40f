/** Low-rank factors of matrices and of products. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { addLeftOut, lowRank, lowRankOfProduct, relativeError } from "../../src/linalg/low_rank.ts";
import { assertWithin, randomArray } from "../tensor/harness.ts";
import { figures } from "../merge/figures.ts";
import { product } from "../merge/products.ts";

Deno.test("the best approximation of rank 2 of a difference of two models is that of another program", async () => {
  using file = await figures();
  const matrix = (await file.read("difference")).data as Float32Array;
  const expected = (await file.read("difference.r2")).data as Float32Array;
  const values = (await file.readArray("difference.singular_values")).data as Float64Array;
  const { a, b, rank, singularValues, left } = lowRank(matrix, 16, 64, 2);
  assertEquals(rank, 2);
  assertWithin(product(b, a, 16, 2, 64), expected, 1e-7, "b a");
  assertWithin(singularValues, values.slice(0, 2), 1e-7, "singular values");
  const squares = (part: Float64Array) => part.reduce((sum, value) => sum + value * value, 0);
  const error = Math.sqrt(squares(values.slice(2)) / squares(values));
  assert(
    Math.abs(relativeError(left) - error) < 1e-6,
    `relative error ${relativeError(left)}, expected ${error}`,
  );
  const whole = lowRank(matrix, 16, 64, 99);
  assertEquals([whole.rank, whole.a.length, whole.b.length], [16, 16 * 64, 16 * 16]);
  assertWithin(whole.singularValues, values, 1e-7, "all singular values");
  assert(relativeError(whole.left) < 1e-7);
});

Deno.test("a product is decomposed as the matrix that it is, without being formed", () => {
  const [out, inner, inSize] = [11, 4, 7];
  const b = Float64Array.from(randomArray(out * inner, 1));
  const a = Float64Array.from(randomArray(inner * inSize, 2));
  // Two of its columns are the same: the rank is 3.
  for (let o = 0; o < out; o++) b[o * inner + 3] = b[o * inner]!;
  const dense = product(b, a, out, inner, inSize);
  for (const rank of [1, 2, 3, 4, 9]) {
    const [found, expected] = [
      lowRankOfProduct({ a, b }, out, inSize, rank),
      lowRank(dense, out, inSize, rank),
    ];
    const kept = Math.min(rank, inner);
    assertEquals(found.rank, kept);
    assertWithin(
      product(found.b, found.a, out, kept, inSize),
      product(expected.b, expected.a, out, expected.rank, inSize),
      1e-7,
      `rank ${rank}`,
    );
    assert(Math.abs(relativeError(found.left) - relativeError(expected.left)) < 1e-7);
  }
});

Deno.test("of nothing nothing is left out, and errors add up by squares", () => {
  assertEquals(relativeError(lowRank(new Float32Array(6), 2, 3, 1).left), 0);
  assertEquals(relativeError(addLeftOut([])), 0);
  assertEquals(relativeError(addLeftOut([{ squares: 9, of: 20 }, { squares: 7, of: 5 }])), 0.8);
});
