// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { tokenScores } from "../../src/tensor/ops/token_scores.ts";
import { Program } from "../../src/tensor/plan.ts";
import { gpuTest, randomArray, run } from "./harness.ts";
import { type Mistake, plantAny } from "./planted.ts";

/** Rows on which sums and places go wrong: equal entries, large values, a token at either end, one that is not there. */
function cases(width: number): { row: Float32Array; token: number }[] {
  const last = width - 1;
  return [
    { row: randomArray(width, 1, 4), token: last },
    { row: randomArray(width, 2, 3).map(Math.round), token: width >> 1 },
    { row: new Float32Array(width).fill(-2.5), token: last },
    { row: randomArray(width, 3, 60), token: 0 },
    { row: Float32Array.from({ length: width }, (_, v) => v === last ? 30 : 0), token: last },
    { row: randomArray(width, 4, 1).map((z, v) => width > 1 && v % 2 === 0 ? -Infinity : z), token: last },
    { row: randomArray(width, 5, 9), token: -100 },
  ];
}

function expected({ row, token }: { row: Float32Array; token: number }): number[] {
  const top = row.reduce((a, b) => Math.max(a, b));
  const lse = top + Math.log(row.reduce((sum, z) => sum + Math.exp(z - top), 0));
  if (token < 0) return [0, lse, 0];
  const own = row[token]!;
  let place = 1;
  row.forEach((z, v) => place += Number(z > own || (z === own && v < token)));
  return [own, lse, place];
}

async function scored(
  gpu: Gpu,
  list: readonly { row: Float32Array; token: number }[],
  spoil = (t: Tensor) => t,
  scalars: Record<string, number> = {},
): Promise<number[][]> {
  const width = list[0]!.row.length;
  const { outputs } = await run(
    gpu,
    [
      {
        shape: [list.length, width],
        data: Float32Array.from({ length: list.length * width }, (_, i) => {
          return list[Math.floor(i / width)]!.row[i % width]!;
        }),
      },
      { shape: [list.length], dtype: "i32", data: Int32Array.from(list, ({ token }) => token) },
    ],
    (_, x, tokens) => spoil(tokenScores(x!, tokens!)),
    scalars,
  );
  return list.map((_, r) => [...outputs[0]!.slice(3 * r, 3 * r + 3)]);
}

/** The number of the first row that is not as it should be; -1 where all are. */
function wrong(list: ReturnType<typeof cases>, found: number[][]): number {
  return list.findIndex((one, r) => {
    const [logit, lse, place] = found[r]!;
    const right = expected(one);
    return !(logit === right[0] && place === right[2] &&
      Math.abs(lse! - right[1]!) <= 2e-6 * (1 + Math.abs(right[1]!)));
  });
}

gpuTest("tokenScores() gives logits, sums over the whole row and places", async (gpu) => {
  for (const width of [1, 7, 257, 2049, 152_064]) {
    const list = width > 100_000 ? cases(width).slice(0, 2) : cases(width);
    assertEquals(wrong(list, await scored(gpu, list)), -1, `width ${width}`);
  }
});

gpuTest("a score with a planted mistake does not pass", async (gpu) => {
  const list = cases(301);
  const mistakes: Mistake[] = [
    ["v < id", "(v < id && !WRONG)"],
    ["exp(z - top), v < end)", "exp(z - top), v < end || WRONG)"],
    ["f32(before + 1u)", "f32(before + select(1u, 0u, WRONG))"],
    ["top + log(sum)", "select(top, 0.0, WRONG) + log(sum)"],
    ["scores[row * 3u] = select(0.0, own, there)", "scores[row * 3u] = select(0.0, own, there || WRONG)"],
  ];
  const found = (mistake: number) => scored(gpu, list, (t) => plantAny(t, mistakes), { mistake });
  assertEquals(wrong(list, await found(0)), -1);
  for (const [i, [right]] of mistakes.entries()) assert(wrong(list, await found(i + 1)) >= 0, right);
});

gpuTest("a row with a NaN has no score that could pass for one", async (gpu) => {
  const row = randomArray(20, 1, 4);
  row[7] = NaN;
  const [[, lse]] = await scored(gpu, [{ row, token: 3 }]) as [number[]];
  assert(!Number.isFinite(lse));
});

Deno.test("tokenScores() refuses tokens that do not fit the rows", () => {
  const g = new Program().block("test");
  const x = g.input("x", [2, 3], "f32");
  assertThrows(() => tokenScores(x, g.input("t", [3], "i32")), ShapeError, "one i32 token a row");
});
