// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import { assertWithin, gpuTest, maxDifference, run, testGpu } from "./harness.ts";
import { numericGradient, operand } from "./oracle.ts";
import { plant } from "./planted.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import type { Graph, Tensor } from "../../src/tensor/graph.ts";
import { add, combine } from "../../src/tensor/ops/combine.ts";
import { optimise } from "../../src/tensor/optimise.ts";
import { headNorm, rmsNorm, rmsNormBackwardOp } from "../../src/tensor/ops/rms_norm.ts";
import { Program } from "../../src/tensor/plan.ts";
import { ShapeError } from "../../src/base/errors.ts";

const EPSILON = 1e-5;

function reference(x: ArrayLike<number>, w: ArrayLike<number>, rows: number, plus = 0): Float64Array {
  const width = w.length;
  const y = new Float64Array(rows * width);
  for (let t = 0; t < rows; t++) {
    let squares = 0;
    for (let h = 0; h < width; h++) squares += x[t * width + h]! ** 2;
    const scale = 1 / Math.sqrt(squares / width + EPSILON);
    for (let h = 0; h < width; h++) y[t * width + h] = x[t * width + h]! * scale * (plus + w[h]!);
  }
  return y;
}

gpuTest("rmsNorm() matches f64 for every weight type and odd widths", async (gpu) => {
  for (const dtype of ["f32", "f16", "bf16"] as const) {
    for (
      const [rows, width] of [[1, 1], [3, 7], [5, 32], [2, 36], [4, 255], [3, 288], [2, 1028], [
        1,
        8196,
      ]] as const
    ) {
      const [x, w] = [operand([rows, width], 1), operand([width], 2, dtype, "weight")];
      const { outputs } = await run(gpu, [x, w], (_, x, w) => rmsNorm(x!, w!, EPSILON));
      assertWithin(outputs[0]!, reference(x.values, w.values, rows), 1e-6, `${dtype} ${rows}x${width}`);
    }
  }
});

gpuTest(
  "rmsNorm() times 1 + weight matches f64, forward and backward, for every weight type",
  async (gpu) => {
    for (const dtype of ["f32", "f16", "bf16"] as const) {
      for (const [rows, width] of [[3, 36], [33, 7]] as const) {
        const kind = dtype === "f32" ? "input" : "weight";
        const [x, dy] = [operand([rows, width], 1), operand([rows, width], 3)];
        const w = operand([width], 2, dtype, kind);
        const { outputs } = await run(gpu, [x, w, dy], (graph, x, w, dy) => {
          const y = rmsNorm(x!, w!, EPSILON, { plusOne: true });
          return [y, ...gradients(graph, [[y, dy!]], dtype === "f32" ? [x!, w!] : [x!]).map((g) => g!)];
        });
        const what = `${dtype} ${rows}x${width}`;
        assertWithin(outputs[0]!, reference(x.values, w.values, rows, 1), 1e-6, what);
        const dx = numericGradient((v) => reference(v, w.values, rows, 1), x.values, dy.values);
        assertWithin(outputs[1]!, dx, 1e-5, `dx ${what}`);
        if (dtype !== "f32") continue;
        const dw = numericGradient((v) => reference(x.values, v, rows, 1), w.values, dy.values);
        assertWithin(outputs[2]!, dw, 1e-5, `dw ${what}`);
      }
    }
  },
);

gpuTest("headNorm() takes each head on its own, all with one weight", async (gpu) => {
  // Heads in vectors of four, and heads that are none.
  for (const headDim of [12, 14]) {
    const [x, w, dy] = [operand([5, 3 * headDim], 1), operand([headDim], 2), operand([5, 3 * headDim], 3)];
    const { outputs } = await run(gpu, [x, w, dy], (graph, x, w, dy) => {
      const y = headNorm(x!, w!, EPSILON);
      return [y, ...gradients(graph, [[y, dy!]], [x!, w!]).map((g) => g!)];
    });
    assertWithin(outputs[0]!, reference(x.values, w.values, 15), 1e-6, `${headDim}`);
    const dx = numericGradient((v) => reference(v, w.values, 15), x.values, dy.values);
    assertWithin(outputs[1]!, dx, 1e-5, `dx ${headDim}`);
    const dw = numericGradient((v) => reference(x.values, v, 15), w.values, dy.values);
    assertWithin(outputs[2]!, dw, 1e-5, `dw ${headDim}`);
  }
});

Deno.test("rmsNorm() has the attributes that identities in earlier manifests were made of", () => {
  const g = new Program().block("test");
  const y = rmsNorm(g.input("x", [4, 32], "f32"), g.weight("w", [32], "f32"), EPSILON);
  assertEquals(JSON.stringify(y.producer!.attributes), '{"epsilon":0.00001}');
});

Deno.test("headNorm() refuses a width that is no number of heads", () => {
  const g = new Program().block("test");
  assertThrows(
    () => headNorm(g.input("x", [4, 32], "f32"), g.weight("w", [12], "f32"), EPSILON),
    ShapeError,
    "32 columns are no heads of 12",
  );
});

gpuTest("rmsNorm() is as exact for tiny and large rows", async (gpu) => {
  const [x, w] = [operand([4, 288], 1), operand([288], 2)];
  [1e-6, 1e-3, 1e4, 1e15].forEach((size, t) => {
    for (let h = 0; h < 288; h++) x.values[t * 288 + h]! *= size;
  });
  const { outputs } = await run(gpu, [x, w], (_, x, w) => rmsNorm(x!, w!, EPSILON));
  const expected = reference(x.values, w.values, 4);
  for (let t = 0; t < 4; t++) {
    const row = (y: Float32Array | Float64Array) => y.slice(t * 288, (t + 1) * 288);
    const size = Math.max(...row(expected).map(Math.abs));
    assertWithin(row(outputs[0]!), row(expected), 4e-7 * size, `row ${t}`);
  }
});

gpuTest("gradients of rmsNorm() match central differences", async (_, family) => {
  // So few workgroups in a dimension that the grid is folded.
  const gpu = await testGpu(family, { maxWorkgroupsPerDimension: family === "tiled" ? 9 : 3 });
  // The last is more than software devices keep in registers.
  for (const [rows, width] of [[1, 1], [2, 7], [3, 36], [33, 8], [70, 5], [2, 388]] as const) {
    const [x, w, dy] = [operand([rows, width], 1), operand([width], 2), operand([rows, width], 3)];
    const { outputs } = await run(
      gpu,
      [x, w, dy],
      (graph, x, w, dy) => gradients(graph, [[rmsNorm(x!, w!, EPSILON), dy!]], [x!, w!]).map((g) => g!),
    );
    const dx = numericGradient((v) => reference(v, w.values, rows), x.values, dy.values);
    const dw = numericGradient((v) => reference(x.values, v, rows), w.values, dy.values);
    // A row of one element is nearly constant under scaling, so its gradient is small against what cancels in it.
    assertWithin(outputs[0]!, dx, 5e-6, `dx ${rows}x${width}`);
    assertWithin(outputs[1]!, dw, 1e-5, `dw ${rows}x${width}`);
  }
});

gpuTest("the backward pass adds the gradient that passes the norm by", async (gpu) => {
  for (const [rows, width] of [[9, 36], [3, 7], [2, 388]] as const) {
    const [x, w] = [operand([rows, width], 1), operand([width], 2)];
    const [dy, past] = [operand([rows, width], 3), operand([rows, width], 4)];
    const dx = numericGradient((v) => reference(v, w.values, rows), x.values, dy.values);
    const { outputs } = await run(gpu, [x, w, dy, past], (graph, x, w, dy, past) => {
      const seeds = [[rmsNorm(x!, w!, EPSILON), dy!], [x!, past!]] as const;
      // The same node, as tracing does not make it, with a mistake.
      const wrong = graph.add(rmsNormBackwardOp, [x!, w!, dy!, past!], { epsilon: EPSILON })[0]!;
      return [gradients(graph, seeds, [x!])[0]!, plant(wrong, "+ addend[", "- addend[")];
    });
    const expected = dx.map((v, i) => v + past.values[i]!);
    assertWithin(outputs[0]!, expected, 5e-6, `${rows}x${width}`);
    assert(maxDifference(outputs[1]!, expected) > 0.1);
  }
});

Deno.test("the backward pass of a norm takes a sum in, but not where its parts are used elsewhere", () => {
  const names = (use: (graph: Graph, dx: Tensor, weightGradient: boolean) => Tensor, weight = false) => {
    const g = new Program().block("test");
    const [x, dy] = [g.input("x", [4, 32], "f32"), g.input("dy", [4, 32], "f32")];
    const w = g.weight("w", [32], "f32");
    const found = gradients(g, [[rmsNorm(x, w, EPSILON), dy]], weight ? [x, w] : [x]);
    g.output("sum", use(g, found[0]!, weight));
    if (weight) g.output("dw", found[1]!);
    return optimise(g).map((n) => n.op.name);
  };
  const plus = (g: Graph, dx: Tensor) => add(dx, g.input("other", [4, 32], "f32"));
  assertEquals(names(plus), ["rmsNormBackward"]);
  assertEquals(names((g, dx) => combine([dx, g.input("other", [4, 32], "f32")], [2, 1])).length, 2);
  assertEquals(names((_, dx) => add(dx, dx)).length, 2);
  // One range of memory is not bound twice.
  assertEquals(names((g, dx) => add(dx, g.input("dy", [4, 32], "f32"))).length, 2);
  assertEquals(names((g, dx) => (g.output("dx", dx), plus(g, dx))).length, 2);
  assertEquals(names(plus, true).length, 3);
});

gpuTest("the gradient of x passes through half-precision weights", async (gpu) => {
  for (const dtype of ["f16", "bf16"] as const) {
    for (const width of [36, 9]) {
      const [x, dy] = [operand([3, width], 1), operand([3, width], 3)];
      const w = operand([width], 2, dtype, "weight");
      const { outputs } = await run(
        gpu,
        [x, w, dy],
        (graph, x, w, dy) => gradients(graph, [[rmsNorm(x!, w!, EPSILON), dy!]], [x!])[0]!,
      );
      const dx = numericGradient((v) => reference(v, w.values, 3), x.values, dy.values);
      assertWithin(outputs[0]!, dx, 5e-6, `${dtype} ${width}`);
    }
  }
});

gpuTest("a missing epsilon, or a missing term of the gradient, does not pass", async (gpu) => {
  const [x, w, dy] = [operand([3, 36], 1), operand([36], 2), operand([3, 36], 3)];
  const { outputs } = await run(gpu, [x, w, dy], (graph, x, w, dy) => {
    const y = plant(rmsNorm(x!, w!, 1e-4), "+ size.epsilon", "");
    const [dx, dw] = gradients(graph, [[rmsNorm(x!, w!, EPSILON), dy!]], [x!, w!]);
    return [y, plant(dx!, " * along", " * 0.0"), plant(dw!, " * scale[t]", "")];
  });
  const dw = numericGradient((v) => reference(x.values, v, 3), w.values, dy.values);
  assert(maxDifference(outputs[2]!, dw) > 0.01);
  const dx = numericGradient((v) => reference(v, w.values, 3), x.values, dy.values);
  assert(maxDifference(outputs[0]!, reference(x.values, w.values, 3)) > 1e-5);
  assert(maxDifference(outputs[1]!, dx) > 0.01);
  const { outputs: plus } = await run(gpu, [x, w, dy], (graph, x, w, dy) => {
    const planted = () =>
      plant(rmsNorm(x!, w!, EPSILON, { plusOne: true }), "(1.0 + weight(at))", "weight(at)");
    const right = rmsNorm(x!, w!, EPSILON, { plusOne: true });
    const [dx] = gradients(graph, [[right, dy!]], [x!]);
    return [planted(), plant(dx!, "(1.0 + weight(at))", "weight(at)")];
  });
  assert(maxDifference(plus[0]!, reference(x.values, w.values, 3, 1)) > 0.5);
  const plusDx = numericGradient((v) => reference(v, w.values, 3, 1), x.values, dy.values);
  assert(maxDifference(plus[1]!, plusDx) > 0.1);
});
