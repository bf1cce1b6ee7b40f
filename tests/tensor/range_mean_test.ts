// @ts-types="../../types/std_assert.d.ts"
import { assert, assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import { rangeMean } from "../../src/tensor/ops/range_mean.ts";
import { Program } from "../../src/tensor/plan.ts";
import { assertWithin, gpuTest, maxDifference, run, testGpu } from "./harness.ts";
import { indices, operand } from "./oracle.ts";
import { plant } from "./planted.ts";

const START = [0, 3, 16, 5, 0, 8, 0];
const END = [17, 4, 17, 5, 1, 2, 0];

function expected(x: Float32Array, width: number): Float64Array {
  return Float64Array.from({ length: START.length * width }, (_, at) => {
    const [s, h] = [Math.floor(at / width), at % width];
    const count = Math.max(0, END[s]! - START[s]!);
    let sum = 0;
    for (let t = START[s]!; t < END[s]!; t++) sum += x[t * width + h]!;
    return count === 0 ? 0 : sum / count;
  });
}

gpuTest("rangeMean() equals f64; empty ranges give zeros", async (gpu, family) => {
  for (const width of [1, 3, 4, 36, 300]) {
    const x = operand([17, width], width);
    // Few groups a dimension, so that the grid is folded.
    const folded = await testGpu(family, { maxWorkgroupsPerDimension: 16 });
    for (const device of [gpu, folded]) {
      const { outputs } = await run(
        device,
        [x, indices(START), indices(END)],
        (_, x, start, end) => rangeMean(x!, start!, end!),
      );
      assertWithin(outputs[0]!, expected(x.values, width), 2e-7, `width ${width}`);
    }
  }
});

gpuTest("the comparison notices a range that is one too short", async (gpu) => {
  const x = operand([17, 8], 1);
  const { outputs } = await run(
    gpu,
    [x, indices(START), indices(END)],
    (_, x, start, end) => plant(rangeMean(x!, start!, end!), "t < last", "t + 1 < last"),
  );
  assert(maxDifference(outputs[0]!, expected(x.values, 8)) > 1e-2);
});

Deno.test("rangeMean() refuses ranges of two lengths and tensors of other shapes", () => {
  const g = new Program().block("test");
  const [x, start, end] = [
    g.input("x", [4, 3], "f32"),
    g.input("start", [2], "i32"),
    g.input("end", [3], "i32"),
  ];
  assertThrows(() => rangeMean(x, start, end), ShapeError, "start and end must be i32 [S]");
  assertThrows(() => rangeMean(g.input("v", [4], "f32"), start, start), ShapeError, "expected f32 [T, H]");
});
