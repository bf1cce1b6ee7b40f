// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { rowLogSumExp } from "../../src/tensor/ops/row_log_sum_exp.ts";
import { Program } from "../../src/tensor/plan.ts";
import { assertWithin, gpuTest, maxDifference, randomArray, run, testGpu } from "./harness.ts";
import { numericGradient } from "./oracle.ts";
import { NOTHING, plantAny } from "./planted.ts";

/** log sum exp(x / tau) of rows, in f64. */
function reference(x: ArrayLike<number>, rows: number, tau: number): Float64Array {
  const width = x.length / rows;
  return Float64Array.from({ length: rows }, (_, t) => {
    const row = Array.from({ length: width }, (_, n) => x[t * width + n]! / tau);
    const largest = Math.max(...row);
    return largest + Math.log(row.reduce((sum, z) => sum + Math.exp(z - largest), 0));
  });
}

/** One element; less than four; less than a workgroup; whole and broken turns of both families. */
const SHAPES = [[1, 1], [3, 3], [2, 31], [5, 64], [3, 257], [2, 1028]] as const;

gpuTest("rowLogSumExp() is that of f64, at any temperature, and so is its gradient", async (gpu, family) => {
  const folded = await testGpu(family, { maxWorkgroupsPerDimension: 4 });
  for (const [rows, width] of SHAPES) {
    // Far from 0, and far apart: exp of these overflows and vanishes.
    const x = randomArray(rows * width, width, 60).map((v, i) => v + (i % 2 ? 0 : 40));
    const above = randomArray(rows, 7);
    for (const tau of [1, 2.5]) {
      const inputs = [{ shape: [rows, width], data: x }, { shape: [rows, 1], data: above }];
      const { outputs: [y, dx] } = await run(rows > 2 ? folded : gpu, inputs, (graph, x, above) => {
        const y = rowLogSumExp(x!, tau === 1 ? undefined : "tau");
        return [y, gradients(graph, [[y, above!]], [x!])[0]!];
      }, { tau });
      assertWithin(y!, reference(x, rows, tau), 2e-5, `${rows} rows of ${width} at ${tau}`);
      if (width > 300) continue;
      const slopes = numericGradient((x) => reference(x, rows, tau), x, above);
      assertWithin(dx!, slopes, 2e-5, `gradient of ${rows} rows of ${width} at ${tau}`);
    }
  }
});

gpuTest("rowLogSumExp() finds the largest of a row wherever it is", async (gpu) => {
  for (const width of [259, 260]) {
    // Far above all others, and in each place once: whoever overlooks it gets infinity.
    const x = randomArray(width * width, width).map((v, i) =>
      v + (Math.floor(i / width) === i % width ? 400 : 0)
    );
    for (const tau of [1, 2.5]) {
      const inputs = [{ shape: [width, width], data: x }];
      const { outputs } = await run(gpu, inputs, (_, x) => rowLogSumExp(x!, tau === 1 ? undefined : "tau"), {
        tau,
      });
      assertWithin(outputs[0]!, reference(x, width, tau), 5e-5, `rows of ${width} at ${tau}`);
    }
  }
});

gpuTest("the check of rowLogSumExp() notices planted mistakes", async (gpu) => {
  const [rows, width] = [2, 70];
  const x = randomArray(rows * width, 3, 5);
  const mistakes = [
    NOTHING,
    ["largest / temperature + log(total)", "select(largest / temperature, 0.0, WRONG) + log(total)"],
    ["exp((x", "select(1.0, 2.0, WRONG) * exp((x"],
  ] as const;
  const found = await Promise.all(mistakes.map(async (_, mistake) => {
    const { outputs } = await run(
      gpu,
      [{ shape: [rows, width], data: x }],
      (_, x) => plantAny(rowLogSumExp(x!, "tau"), mistakes),
      { tau: 2, mistake: mistake + 1 },
    );
    return maxDifference(outputs[0]!, reference(x, rows, 2)) < 2e-5;
  }));
  assertEquals(found, [true, false, false]);
});

Deno.test("rowLogSumExp() refuses what is no matrix", () => {
  const g = new Program().block("test");
  assertThrows(() => rowLogSumExp(g.input("x", [4], "f32")), ShapeError, "expected f32 [T, N]");
  assertThrows(() => rowLogSumExp(g.input("y", [4, 2], "i32")), ShapeError);
});
