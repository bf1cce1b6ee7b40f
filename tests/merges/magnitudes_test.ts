/** Selection by magnitude against sorting, on what breaks selections: ties, zeros of either sign, subnormal numbers, infinite ones. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals } from "@std/assert";
import {
  dropLargest,
  keepLargest,
  MagnitudeCounts,
  magnitudeOf,
  nthMagnitude,
} from "../../plugins/merges/magnitudes.ts";
import { randomNumbers } from "../../src/registry/check/rows.ts";

const next = randomNumbers(9);
const random = (count: number, f: (x: number) => number) =>
  Float32Array.from({ length: count }, () => f(next() - 0.5));

const VECTORS: Readonly<Record<string, Float32Array>> = {
  "random": random(1000, (x) => x),
  "tied": random(1000, (x) => Math.round(8 * x) / 8),
  "all alike": new Float32Array(17).fill(-2),
  "zeros": Float32Array.of(0, -0, 0, -0, 0),
  "subnormal": random(100, (x) => x * 1e-40),
  "far apart": random(200, (x) => Math.sign(x) * 10 ** (80 * x)),
  "neighbours": random(300, (x) => 1 + Math.round(10 * x) * 2 ** -23),
  "with infinite ones": Float32Array.of(1, -Infinity, 2, Infinity, -3),
  "one": Float32Array.of(5),
};

/** Places, the largest first, equal ones in their order. */
function bySize(values: Float32Array): number[] {
  return [...values.keys()].sort((i, j) => Math.abs(values[j]!) - Math.abs(values[i]!) || i - j);
}

function counts({ length }: Float32Array): number[] {
  return [...new Set([0, 1, 2, Math.floor(length / 3), length - 1, length, length + 3])].filter((n) =>
    n >= 0
  );
}

for (const [name, values] of Object.entries(VECTORS)) {
  Deno.test(`the largest of a vector are those that sorting finds: ${name}`, () => {
    const order = bySize(values);
    for (const count of counts(values)) {
      const top = new Set(order.slice(0, count));
      const [kept, dropped] = [values.slice(), values.slice()];
      keepLargest(kept, count);
      dropLargest(dropped, count);
      assertEquals(kept, values.map((x, i) => (top.has(i) ? x : 0)), `keep ${count}`);
      assertEquals(dropped, values.map((x, i) => (top.has(i) ? 0 : x)), `drop ${count}`);
      if (count < 1 || count > values.length) continue;
      assertEquals(nthMagnitude(values, count), Math.abs(values[order[count - 1]!]!), `number ${count}`);
    }
  });
}

Deno.test("magnitudes counted in several arrays are those of all together, one that begins inside of a buffer too", () => {
  const all = VECTORS.random!;
  const parts = [all.subarray(0, 7), all.subarray(7, 512), all.subarray(512)];
  const counted = new MagnitudeCounts();
  for (const part of parts) counted.countHigh(part);
  for (const part of parts) counted.countLow(part, 250);
  assertEquals(counted.total, 1000);
  assertEquals(magnitudeOf(counted.cut(250).pattern), nthMagnitude(all, 250));
});
