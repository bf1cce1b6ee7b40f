// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { topK } from "../../src/tensor/ops/top_k.ts";
import { Program } from "../../src/tensor/plan.ts";
import { gpuTest, randomArray, run } from "./harness.ts";
import { type Mistake, plantAny } from "./planted.ts";

/** Rows on which selections go wrong: ties of every kind, signs, both zeros, infinities, order. */
function rows(width: number): Float32Array[] {
  const random = (seed: number, scale: number) => randomArray(width, seed, scale);
  return [
    random(1, 10),
    random(2, 3).map(Math.round),
    new Float32Array(width).fill(-2.5),
    Float32Array.from({ length: width }, (_, v) => v % 2 ? 0 : -0),
    Float32Array.from({ length: width }, (_, v) => v / 7),
    Float32Array.from({ length: width }, (_, v) => -v * 1e-3),
    random(3, 1).map((z, v) => v % 3 === 0 ? -Infinity : z * 1e-38),
    random(4, 60),
  ];
}

/** Ids by falling value, at ties the lower first. */
function sorted(row: Float32Array, k: number): number[] {
  return [...row.keys()].sort((a, b) => row[b]! > row[a]! ? 1 : row[b]! < row[a]! ? -1 : a - b).slice(0, k);
}

async function selected(
  gpu: Gpu,
  list: Float32Array[],
  k: number,
  spoil = (t: Tensor) => t,
  scalars: Record<string, number> = {},
) {
  const width = list[0]!.length;
  const data = Float32Array.from(list.flatMap((row) => [...row]));
  const { outputs } = await run(gpu, [{ shape: [list.length, width], data }], (_, x) => {
    const { ids, values } = topK(x!, k);
    spoil(values);
    return [ids, values];
  }, scalars);
  const part = (t: Float32Array, r: number) => [...t.slice(r * k, (r + 1) * k)];
  return list.map((_, r) => ({ ids: part(outputs[0]!, r), values: part(outputs[1]!, r) }));
}

for (const [width, k] of [[1, 1], [7, 7], [8, 3], [255, 256 - 1], [257, 64], [2049, 256], [152_064, 128]]) {
  gpuTest(`topK() of ${k} of ${width} is a stable sort`, async (gpu) => {
    const list = width! > 100_000 ? rows(width!).slice(0, 2) : rows(width!);
    const found = await selected(gpu, list, k!);
    list.forEach((row, r) => {
      const ids = sorted(row, k!);
      assertEquals(found[r]!.ids, ids, `row ${r}`);
      assertEquals(found[r]!.values, ids.map((v) => row[v]), `row ${r}`);
    });
  });
}

gpuTest("a selection with a planted mistake does not pass", async (gpu) => {
  const list = rows(300);
  const mistakes: Mistake[] = [
    ["tied = inside > wanted;", "tied = inside > wanted && !WRONG;"],
    ["select(bits | 0x80000000u, ~bits,", "select(bits | 0x80000000u, select(~bits, bits, WRONG),"],
    ["chosen_id[other] < id", "select(chosen_id[other] < id, chosen_id[other] > id, WRONG)"],
    ["select(z, 0.0, z == 0.0)", "select(z, 0.0, z == 0.0 && !WRONG)"],
    ["wanted -= above;", "wanted -= select(above, 0u, WRONG);"],
  ];
  const withMistake = async (mistake: number) =>
    (await selected(gpu, list, 20, (t) => plantAny(t, mistakes), { mistake })).map((f) => f.ids);
  const expected = list.map((row) => sorted(row, 20));
  assertEquals(await withMistake(0), expected);
  for (const [i, [right]] of mistakes.entries()) assertNotEquals(await withMistake(i + 1), expected, right);
});

Deno.test("topK() refuses more than there are, and more than 256", () => {
  const g = new Program().block("test");
  assertThrows(() => topK(g.input("x", [2, 3], "f32"), 4), ShapeError, "cannot take 4 of 3");
  assertThrows(
    () => topK(g.input("y", [2, 3000], "f32"), 257),
    ShapeError,
    "cannot take 257 of 3000 (at most 256)",
  );
  assert(topK(g.input("z", [2, 3000], "f32"), 256).ids.dtype === "u32");
});
