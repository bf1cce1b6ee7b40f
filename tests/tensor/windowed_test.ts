// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import { windowed } from "../../src/tensor/ops/windowed.ts";
import { Program } from "../../src/tensor/plan.ts";
import { gpuTest, run, testGpu } from "./harness.ts";
import { indices } from "./oracle.ts";
import { plant } from "./planted.ts";

/** Three samples packed back to back, one empty range, one in the slots of a cache far from where the sample begins. */
function ranges(): [number, number][] {
  const packed = [190, 1, 5].flatMap((length, s) => {
    const start = [0, 190, 191][s]!;
    return Array.from({ length }, (_, i): [number, number] => [start, start + i + 1]);
  });
  return [...packed, [7, 7], [1000, 1300]];
}

/** The last `window` keys of start <= j < end, one by one. */
function lastKeys([start, end]: [number, number], window: number): number[] {
  return Array.from({ length: Math.max(0, end - start) }, (_, i) => start + i).slice(-window);
}

gpuTest("windowed() leaves a query the last keys of its range, itself included", async (_, family) => {
  const gpu = await testGpu(family, { maxWorkgroupsPerDimension: 3 });
  const all = ranges();
  const inputs = [indices(all.map((r) => r[0])), indices(all.map((r) => r[1]))];
  for (const window of [1, 3, 64, 189, 2 ** 31 - 1]) {
    const { outputs } = await run(gpu, inputs, (_, start, end) => {
      const made = windowed({ start: start!, end: end! }, window);
      return [made.start, made.end];
    });
    const seen = [...outputs[0]!].map((start, t) => lastKeys([start, outputs[1]![t]!], Infinity));
    assertEquals(seen, all.map((range) => lastKeys(range, window)), `a window of ${window}`);
  }
  for (const [right, wrong] of [["- size.window", "- size.window + 1"], ["max(start[t], ", "max(0, "]]) {
    const { outputs } = await run(gpu, inputs, (_, start, end) => {
      return plant(windowed({ start: start!, end: end! }, 3).start, right!, wrong!);
    });
    assertNotEquals(
      [...outputs[0]!].map((start, t) => lastKeys([start, all[t]![1]], Infinity)),
      all.map((range) => lastKeys(range, 3)),
      right,
    );
  }
});

Deno.test("windowed() without a window is the ranges themselves, and refuses what is none", () => {
  const g = new Program().block("test");
  const given = { start: g.input("start", [5], "i32"), end: g.input("end", [5], "i32") };
  assertEquals(windowed(given, undefined), given);
  assertEquals(g.nodes.length, 0);
  for (const window of [0, -4, 2.5, NaN, 2 ** 31]) {
    assertThrows(() => windowed(given, window), ShapeError, `keys, not ${window}`);
  }
  const short = g.input("short", [4], "i32");
  assertThrows(() => windowed({ ...given, end: short }, 3), ShapeError, "must be i32 [T]");
});
