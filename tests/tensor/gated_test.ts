// @ts-types="../../types/std_assert.d.ts"
import { assert } from "@std/assert";
import { assertWithin, gpuTest, maxDifference, run, testGpu } from "./harness.ts";
import { numericGradient, operand } from "./oracle.ts";
import { plant } from "./planted.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { gatedSilu } from "../../src/tensor/ops/gated.ts";

const silu = (g: number) => g / (1 + Math.exp(-g));

gpuTest("gatedSilu() is silu(gate) * up, and so are its gradients", async (_, family) => {
  // So few workgroups in a dimension that the grid is folded.
  const gpu = await testGpu(family, { maxWorkgroupsPerDimension: 3 });
  for (const shape of [[1, 1], [3, 5], [31, 33], [7, 172], [40, 100]]) {
    const [gate, up, dy] = [1, 2, 3].map((seed) => operand(shape, seed));
    gate!.values.forEach((g, i) => gate!.values[i] = 8 * g);
    const { outputs } = await run(gpu, [gate!, up!, dy!], (graph, g, u, d) => {
      const y = gatedSilu(g!, u!);
      const [dg, du] = gradients(graph, [[y, d!]], [g!, u!]);
      return [y, dg!, du!];
    });
    const f = (g: ArrayLike<number>, u: ArrayLike<number>) => Array.from(g, (x, i) => silu(x) * u[i]!);
    assertWithin(outputs[0]!, f(gate!.values, up!.values), 2e-6, `${shape}: value`);
    // At both ends: workgroups make a part each.
    for (const [from, to] of [[0, 200], [-200, undefined]] as const) {
      const [g, u, d] = [gate!, up!, dy!].map(({ values }) => values.slice(from, to)) as [
        Float32Array,
        Float32Array,
        Float32Array,
      ];
      const dg = numericGradient((x) => f(x, u), g, d);
      const du = numericGradient((x) => f(g, x), u, d);
      assertWithin(outputs[1]!.slice(from, to), dg, 2e-6, `${shape}: gradient of gate`);
      assertWithin(outputs[2]!.slice(from, to), du, 2e-6, `${shape}: gradient of up`);
    }
  }
});

gpuTest("gatedSilu() is finite at gates where exp() is not, and keeps NaN", async (gpu) => {
  const gate = { shape: [8], data: Float32Array.of(-1e30, -200, -88.8, -79.9, 88.8, 200, 1e30, NaN) };
  const one = { shape: [8], data: new Float32Array(8).fill(1) };
  const { outputs } = await run(gpu, [gate, one], (graph, g, u) => {
    const y = gatedSilu(g!, u!);
    const [dg, du] = gradients(graph, [[y, u!]], [g!, u!]);
    return [y, dg!, du!];
  });
  const [y, dg, du] = outputs as [Float32Array, Float32Array, Float32Array];
  assertWithin(y.slice(0, 4), [0, 0, 0, 0], 1e-30);
  assertWithin(y.slice(4, 6), [88.8, 200], 1e-5);
  assert(Math.abs(y[6]! / 1e30 - 1) < 1e-6);
  assertWithin(dg.slice(0, 7), [0, 0, 0, 0, 1, 1, 1], 1e-6);
  assertWithin(du.slice(0, 6), y.slice(0, 6), 1e-5);
  for (const out of outputs) assert(Number.isNaN(out[7]), `NaN became ${out[7]}`);
});

gpuTest("a wrong derivative does not pass", async (gpu) => {
  const [gate, up, dy] = [1, 2, 3].map((seed) => operand([4, 8], seed));
  const { outputs } = await run(gpu, [gate!, up!, dy!], (graph, g, u, d) => {
    const [dg] = gradients(graph, [[gatedSilu(g!, u!), d!]], [g!]);
    return plant(dg!, "(1.0 + g * (1.0 - s))", "(1.0 - g * (1.0 - s))");
  });
  const dg = numericGradient(
    (x) => Array.from(x, (v, i) => silu(v) * up!.values[i]!),
    gate!.values,
    dy!.values,
  );
  assert(maxDifference(outputs[0]!, dg) > 0.01);
});
