// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { topKSoftmax } from "../../src/tensor/ops/top_k_softmax.ts";
import { Program } from "../../src/tensor/plan.ts";
import { assertWithin, gpuTest, maxDifference, run } from "./harness.ts";
import { numericGradient, operand } from "./oracle.ts";
import { plant } from "./planted.ts";

/** The gates in f64: sorted, cut off after k, softmax. */
function expected(x: ArrayLike<number>, width: number, k: number): Float64Array {
  const result = new Float64Array(x.length);
  for (let begin = 0; begin < x.length; begin += width) {
    const chosen = Array.from({ length: width }, (_, i) => i)
      .sort((a, b) => x[begin + b]! - x[begin + a]! || a - b)
      .slice(0, k);
    const terms = chosen.map((i) => Math.exp(x[begin + i]! - x[begin + chosen[0]!]!));
    const sum = terms.reduce((a, b) => a + b);
    chosen.forEach((i, n) => result[begin + i] = terms[n]! / sum);
  }
  return result;
}

const CASES = [[1, 1, 1], [1, 5, 2], [3, 4, 1], [65, 7, 3], [130, 16, 16]] as const;

gpuTest("topKSoftmax() and its gradient equal f64", async (gpu) => {
  for (const [rows, width, k] of CASES) {
    const [x, dy] = [operand([rows, width], 1), operand([rows, width], 2)];
    const { outputs } = await run(gpu, [x, dy], (g, x, dy) => {
      const y = topKSoftmax(x!, k);
      return [y, gradients(g, [[y, dy!]], [x!])[0]!];
    });
    const what = `${k} of [${rows}, ${width}]`;
    const want = expected(x.values, width, k);
    assertWithin(outputs[0]!, want, 2e-7, what);
    assertEquals([...outputs[0]!].map((v) => v > 0), [...want].map((v) => v > 0), what);
    const slopes = numericGradient((x) => expected(x, width, k), x.values, dy.values);
    assertWithin(outputs[1]!, slopes, 1e-6, `gradient, ${what}`);
  }
});

gpuTest("topKSoftmax() takes the first of equal elements, and bears large ones", async (gpu) => {
  const rows = [[1, 3, 3, 3, 2], [0, 0, 0, 0, 0], [1e4, -1e4, 9999, 1e4, 3], [-1e30, -2, -1e30, -1e30, -3]];
  const x = Float32Array.from(rows.flat());
  const { outputs } = await run(gpu, [{ shape: [4, 5], data: x }], (_, x) => topKSoftmax(x!, 2));
  assertWithin(outputs[0]!, expected(x, 5, 2), 2e-7);
  assertEquals([...outputs[0]!.subarray(0, 10)], [0, 0.5, 0.5, 0, 0, 0.5, 0.5, 0, 0, 0]);
});

gpuTest("the comparison notices a choice that is one too large", async (gpu) => {
  const x = operand([9, 5], 1);
  const { outputs } = await run(
    gpu,
    [x],
    (_, x) => plant(topKSoftmax(x!, 2), "larger < size.chosen", "larger <= size.chosen"),
  );
  assert(maxDifference(outputs[0]!, expected(x.values, 5, 2)) > 1e-2);
});

Deno.test("topKSoftmax() refuses to choose more than there are", () => {
  const g = new Program().block("test");
  const x = g.input("x", [2, 3], "f32");
  assertThrows(() => topKSoftmax(x, 4), ShapeError, "cannot choose 4 of 3");
  assertThrows(() => topKSoftmax(x, 0), ShapeError, "cannot choose 0 of 3");
  assertThrows(() => topKSoftmax(g.input("v", [3], "f32"), 1), ShapeError, "expected f32 [N, E]");
});
