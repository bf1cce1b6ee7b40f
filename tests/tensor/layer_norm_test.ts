// @ts-types="../../types/std_assert.d.ts"
import { assert, assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { layerNorm } from "../../src/tensor/ops/layer_norm.ts";
import { Program } from "../../src/tensor/plan.ts";
import { assertWithin, gpuTest, maxDifference, run, testGpu } from "./harness.ts";
import { numericGradient, operand } from "./oracle.ts";
import { plant } from "./planted.ts";

const EPSILON = 1e-5;

function reference(x: ArrayLike<number>, w: ArrayLike<number>, b: ArrayLike<number>): Float64Array {
  const width = w.length;
  const y = new Float64Array(x.length);
  for (let first = 0; first < x.length; first += width) {
    let [mean, variance] = [0, 0];
    for (let h = 0; h < width; h++) mean += x[first + h]! / width;
    for (let h = 0; h < width; h++) variance += (x[first + h]! - mean) ** 2 / width;
    const scale = 1 / Math.sqrt(variance + EPSILON);
    for (let h = 0; h < width; h++) y[first + h] = (x[first + h]! - mean) * scale * w[h]! + b[h]!;
  }
  return y;
}

gpuTest("layerNorm() and its gradients match f64 for every weight type and odd widths", async (_, family) => {
  // So few workgroups in a dimension that the grid is folded.
  const gpu = await testGpu(family, { maxWorkgroupsPerDimension: 9 });
  for (const dtype of ["f32", "f16", "bf16"] as const) {
    for (const [rows, width] of [[1, 2], [3, 7], [33, 36], [4, 255], [2, 516]] as const) {
      const kind = dtype === "f32" ? "input" : "weight";
      const [x, dy] = [operand([rows, width], 1), operand([rows, width], 4)];
      const [w, b] = [operand([width], 2, dtype, kind), operand([width], 3, dtype, kind)];
      const { outputs } = await run(gpu, [x, w, b, dy], (graph, x, w, b, dy) => {
        const y = layerNorm(x!, w!, b!, EPSILON);
        return [y, ...gradients(graph, [[y, dy!]], dtype === "f32" ? [x!, w!, b!] : [x!]).map((g) => g!)];
      });
      const what = `${dtype} ${rows}x${width}`;
      assertWithin(outputs[0]!, reference(x.values, w.values, b.values), 2e-6, what);
      if (rows * width > 1100) continue;
      const dx = numericGradient((v) => reference(v, w.values, b.values), x.values, dy.values);
      // The two elements of the shortest row lose nearly all of their gradient to the mean and the deviation.
      assertWithin(outputs[1]!, dx, 1e-5, `dx ${what}`);
      if (dtype !== "f32") continue;
      const dw = numericGradient((v) => reference(x.values, v, b.values), w.values, dy.values);
      assertWithin(outputs[2]!, dw, 2e-5, `dw ${what}`);
      const db = numericGradient((v) => reference(x.values, w.values, v), b.values, dy.values);
      assertWithin(outputs[3]!, db, 1e-5, `db ${what}`);
    }
  }
});

gpuTest("layerNorm() keeps its precision in rows far from zero, and large and tiny ones", async (gpu) => {
  const [x, w, b] = [operand([5, 36], 1), operand([36], 2), operand([36], 3)];
  [[1, 100], [1e-4, 0], [1e6, 0], [1e15, 0], [1, -3000]].forEach(([size, middle], t) => {
    for (let h = 0; h < 36; h++) x.data[t * 36 + h] = x.values[t * 36 + h]! * size! + middle!;
  });
  const { outputs } = await run(gpu, [x, w, b], (_, x, w, b) => layerNorm(x!, w!, b!, EPSILON));
  const expected = reference(x.data, w.values, b.values);
  // An element near 3000 is given to 1e-4, and so is its distance from the mean.
  [2e-5, 2e-6, 2e-6, 2e-6, 5e-4].forEach((tolerance, t) => {
    const row = (y: Float32Array | Float64Array) => y.slice(t * 36, (t + 1) * 36);
    assertWithin(row(outputs[0]!), row(expected), tolerance, `row ${t}`);
  });
});

gpuTest(
  "a mean that is not taken off, or a missing term of a gradient, does not pass",
  async (gpu, family) => {
    // Rows that registers hold are not read again.
    const held = family === "tiled";
    const value = held ? "value0" : "x[first + u]";
    const square = held ? ["(value0 - mean) * (value0 - mean)", "value0 * value0"] as const : [
      "let value = x[first + u] - mean;",
      "let value = x[first + u];",
    ] as const;
    const [x, w, b, dy] = [operand([3, 36], 1), operand([36], 2), operand([36], 3), operand([3, 36], 4)];
    x.data.forEach((v, i) => x.data[i] = v + 1);
    const { outputs } = await run(gpu, [x, w, b, dy], (graph, x, w, b, dy) => {
      const normed = (change: (t: Tensor) => Tensor) => {
        const y = layerNorm(x!, w!, b!, EPSILON);
        change(y.producer!.inputs[0]!);
        return y;
      };
      const [dx, dw] = gradients(graph, [[normed((t) => t), dy!]], [x!, w!]);
      const [dx2] = gradients(graph, [[normed((t) => t), dy!]], [x!]);
      return [
        normed((t) => plant(t, `((${value} - mean) * scale)`, `(${value} * scale)`)),
        normed((t) => plant(t, square[0], square[1])),
        plant(dx!, " - evenly", ""),
        plant(dx2!, ` - (${value} - mean) * along`, ""),
        plant(dw!, " - mean[t]", ""),
      ];
    });
    const y = reference(x.data, w.values, b.values);
    const dx = numericGradient((v) => reference(v, w.values, b.values), x.data, dy.values);
    const dw = numericGradient((v) => reference(x.data, v, b.values), w.values, dy.values);
    [y, y, dx, dx, dw].forEach((expected, i) => {
      const difference = maxDifference(outputs[i]!, expected);
      assert(difference > 0.01, `${i}: ${difference}`);
    });
  },
);

Deno.test("layerNorm() refuses weights of another width", () => {
  const g = new Program().block("test");
  const [x, w] = [g.input("x", [4, 8], "f32"), g.weight("w", [8], "bf16")];
  assertThrows(() => layerNorm(x, g.weight("v", [9], "f32"), w, EPSILON), ShapeError, "a weight [8]");
  assertThrows(() => layerNorm(x, w, g.weight("b", [9], "f32"), EPSILON), ShapeError, "the row's length");
  assertThrows(() => layerNorm(g.input("z", [8], "f32"), w, w, EPSILON), ShapeError, "x must be f32 [T, H]");
});
