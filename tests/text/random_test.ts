// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { MOST_NUMBERS, philoxSimd } from "../../src/base/philox_simd.ts";
import {
  permutation,
  philox4x32,
  plainUniformNumbers,
  splitSeed,
  uniformNumbers,
} from "../../src/base/random.ts";

Deno.test("philox4x32() gives the known answers published with Random123", () => {
  const ones = 0xffffffff;
  for (
    const [counter, key, expected] of [
      [[0, 0, 0, 0], [0, 0], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]],
      [[ones, ones, ones, ones], [ones, ones], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]],
      [
        [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
        [0xa4093822, 0x299f31d0],
        [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
      ],
    ] as const
  ) assertEquals(philox4x32(counter, key), [...expected]);
});

for (
  const [how, numbers] of [["vector instructions", uniformNumbers], [
    "plain JavaScript",
    plainUniformNumbers,
  ]] as const
) {
  Deno.test(`uniform numbers by ${how} are the words of philox4x32(), wherever one begins`, () => {
    const [rest, key] = [[0xfedcba98, 7, 0xffffffff], splitSeed(2 ** 53 - 1)] as const;
    const expected = Float32Array.from({ length: 4000 }, (_, i) => {
      return (philox4x32([Math.floor(i / 4), ...rest], key)[i % 4]! >>> 8) / 2 ** 24;
    });
    assertEquals(numbers(0, 4000, rest, key), expected);
    for (const [first, count] of [[0, 1], [1, 2], [3, 5], [8, 4], [2001, 1999], [5, 0]]) {
      assertEquals(numbers(first!, count!, rest, key), expected.slice(first, first! + count!));
    }
    const block = 0xffff_fff0;
    const [high] = philox4x32([block, ...rest], key);
    assertEquals(numbers(4 * block, 1, rest, key)[0], (high >>> 8) / 2 ** 24);
  });
}

Deno.test("uniform numbers are the same by vector instructions, over several of their turns", () => {
  assert(philoxSimd(), "this engine has WebAssembly with vectors");
  for (const first of [0, 3, 40_000]) {
    for (const count of [1, MOST_NUMBERS - 1, MOST_NUMBERS, MOST_NUMBERS + 1, 2 * MOST_NUMBERS + 7]) {
      const both = [uniformNumbers, plainUniformNumbers].map((f) => f(first, count, [1, 2, 3], [4, 5]));
      assertEquals(both[0], both[1], `${count} from ${first}`);
    }
  }
});

Deno.test("splitSeed() keeps all 53 bits and refuses what is not a seed", () => {
  assertEquals(splitSeed(0x1f_ffff_ffff_ffff), [0xffffffff, 0x1fffff]);
  for (const bad of [-1, 0.5, NaN, 2 ** 53]) assertThrows(() => splitSeed(bad), RangeError);
});

Deno.test("permutation() holds every index once and depends on seed and epoch", () => {
  const order = permutation(1000, 1, 0);
  assertEquals([...order].sort((a, b) => a - b), Array.from({ length: 1000 }, (_, i) => i));
  assertEquals(permutation(1000, 1, 0), order);
  assertNotEquals(permutation(1000, 1, 1), order);
  assertNotEquals(permutation(1000, 2, 0), order);
  assertNotEquals(permutation(1000, 1 + 2 ** 32, 0), order);
  assertEquals([permutation(0, 1, 0).length, permutation(1, 1, 0)[0]], [0, 0]);
});

Deno.test("permutation() is uniform: each of the 24 orders of 4 comes up equally often", () => {
  const counts = new Map<string, number>();
  const draws = 24_000;
  for (let epoch = 0; epoch < draws; epoch++) {
    const order = permutation(4, 7, epoch).join("");
    counts.set(order, (counts.get(order) ?? 0) + 1);
  }
  const expected = draws / 24;
  const chiSquare = [...counts.values()].reduce((sum, n) => sum + (n - expected) ** 2 / expected, 0);
  assertEquals(counts.size, 24);
  // 23 degrees of freedom: above 49.7 with probability 0.1 %.
  assert(chiSquare < 49.7, `chi-square ${chiSquare}`);
});

Deno.test("permutation() of a seed never changes: saved runs depend on it", () => {
  assertEquals([...permutation(12, 1, 0)], [0, 6, 2, 7, 4, 1, 3, 8, 5, 11, 9, 10]);
  assertEquals([...permutation(12, 1, 1)], [0, 2, 9, 8, 7, 4, 10, 1, 11, 5, 3, 6]);
});
