/** Products whose operands are rounded to f16. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertThrows } from "@std/assert";
import { freeing, maxDifference, randomArray, run, testGpu, type Value } from "./harness.ts";
import { type Mistake, plantAny } from "./planted.ts";
import { DeviceError } from "../../src/base/errors.ts";
import { DEFAULT_DEVICE } from "../../src/gpu/description.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { add, scale } from "../../src/tensor/ops/combine.ts";
import { linear, matmul } from "../../src/tensor/ops/matmul.ts";
import { plan, Program } from "../../src/tensor/plan.ts";

function halfTest(name: string, fn: (gpu: Gpu) => Promise<void>): void {
  Deno.test({
    name,
    sanitizeResources: false,
    sanitizeOps: false,
    async fn(t) {
      const gpu = await testGpu("tiled");
      if (!gpu.description.shaderF16) {
        console.log(`skip: ${t.name}: this device has no shader-f16`);
        return;
      }
      await freeing(gpu, () => fn(gpu));
    },
  });
}

type Matrix = Value & { readonly data: Float32Array };

function matrix(
  rows: number,
  columns: number,
  seed: number,
  scale = 1,
  kind: "input" | "weight" = "input",
): Matrix {
  return { shape: [rows, columns], data: randomArray(rows * columns, seed, scale), kind };
}

/**
 * Products and what they may be off by. Rounding an operand to f16 changes it by at most 2^-11 of itself, or, below the smallest normal
 * number, by 2^-14 of that: of x, whose rows were brought to 2^14, by 2^-28 of the row's largest; of w, multiplied by 64, by 2^-20. Then
 * K products are summed in f32.
 */
function reference(x: Matrix, w: Matrix, turned: boolean) {
  const [m, k] = x.shape as [number, number];
  const n = w.shape[turned ? 1 : 0]!;
  const [wn, wk] = turned ? [1, n] : [k, 1];
  const values = new Float64Array(m * n);
  const bounds = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    const row = x.data.subarray(i * k, i * k + k);
    const largest = row.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
    for (let j = 0; j < n; j++) {
      let [sum, size, xs, ws] = [0, 0, 0, 0];
      for (let l = 0; l < k; l++) {
        const [a, b] = [row[l]!, w.data[j * wn + l * wk]!];
        [sum, size, xs, ws] = [sum + a * b, size + Math.abs(a * b), xs + Math.abs(a), ws + Math.abs(b)];
      }
      values[i * n + j] = sum;
      bounds[i * n + j] = (2 ** -10 + 2 ** -22 + k * 2 ** -24) * size + 2 ** -28 * largest * ws +
        2 ** -20 * xs;
    }
  }
  return { values, bounds };
}

function assertBound(
  actual: Float32Array,
  { values, bounds }: ReturnType<typeof reference>,
  what: string,
): void {
  for (let i = 0; i < values.length; i++) {
    if (Math.abs(actual[i]! - values[i]!) <= bounds[i]!) continue;
    throw new Error(`${what}: value ${i} is ${actual[i]}, not ${values[i]} +- ${bounds[i]}`);
  }
}

halfTest("products in f16 keep their bound, in both directions, and are products in f16", async (gpu) => {
  for (const [m, n, k] of [[33, 36, 100], [9, 35, 43]] as const) {
    const [x, w, dy] = [matrix(m, k, 1), matrix(n, k, 2, 0.1, "weight"), matrix(m, n, 3, 1e-6)];
    const { outputs } = await run(gpu, [x, w, dy], (g, x, w, dy) => {
      const y = linear(x!, w!, "f16");
      return [y, gradients(g, [[y, dy!]], [x!])[0]!];
    });
    const forward = reference(x, w, false);
    assertBound(outputs[0]!, forward, `forward ${m}`);
    // No bound that f32 would keep too.
    assert(maxDifference(outputs[0]!, forward.values) > 1e-5);
    assertBound(outputs[1]!, reference(dy, w, true), `backward ${m}`);
  }
});

halfTest(
  "rows of any size, weights beyond f16 and numbers that are none go through products in f16",
  async (gpu) => {
    const [m, n, k] = [6, 36, 100];
    const [x, w] = [matrix(m, k, 1), matrix(n, k, 2, 0.1, "weight")];
    const sizes = [1e-30, 1e-10, 1, 1e10, 1e30, 0];
    sizes.forEach((size, i) => x.data.subarray(i * k, i * k + k).forEach((v, l, row) => row[l] = v * size));
    const { outputs: [y] } = await run(gpu, [x, w], (_, x, w) => linear(x!, w!, "f16"));
    // The part that weights below the range of f16 may lose is the only one in the bound that is not a share of what is summed.
    assertBound(y!, reference(x, w, false), "rows of any size");

    w.data[0] = 5000;
    x.data.fill(0);
    x.data[0] = 3;
    x.data[k] = NaN;
    x.data[2 * k + 1] = Infinity;
    const { outputs: [z] } = await run(gpu, [x, w], (_, x, w) => linear(x!, w!, "f16"));
    assert(Math.abs(z![0]! - 3 * 65504 / 64) < 0.01, `${z![0]}: the largest that a weight can be`);
    assert(Number.isNaN(z![n]!), "NaN stays NaN");
    assert(!Number.isFinite(z![2 * n]!), "and infinity is no number");
    assert(z![3 * n] === 0);
  },
);

halfTest(
  "only the product of frozen weights is in f16, beside one of trained ones and an addend",
  async (gpu) => {
    const [m, n, k, rank] = [9, 36, 100, 8];
    const [x, w] = [matrix(m, k, 1, 2 ** -6), matrix(n, k, 2, 2 ** -6, "weight")];
    const [h, b, r] = [matrix(m, rank, 3), matrix(n, rank, 4), matrix(m, n, 5)];
    const build = (mistakes?: readonly Mistake[]) => (_: unknown, ...t: Tensor[]) => {
      const [x, w, h, b, r] = t as [Tensor, Tensor, Tensor, Tensor, Tensor];
      const frozen = linear(x, w, "f16");
      return add(add(mistakes ? plantAny(frozen, mistakes) : frozen, matmul("NT", scale(h, 2), b)), r);
    };
    const { values, bounds } = reference(x, w, false);
    const second = reference(h, b, false);
    const expected = values.map((v, i) => v + 2 * second.values[i]! + r.data[i]!);
    // What rounding h or b would do is far larger than this.
    const most = bounds.reduce((a, b) => Math.max(a, b)) + 2e-6;
    const off = async (mistakes?: readonly Mistake[], mistake = 0) =>
      maxDifference((await run(gpu, [x, w, h, b, r], build(mistakes), { mistake })).outputs[0]!, expected);
    assert(await off() < most);
    const mistakes: Mistake[] = [
      ["* x_scale0", "* select(x_scale0, 0.5 * x_scale0, WRONG)"],
      ["acc0_0 *= back;", "acc0_0 *= select(back, 1.0, WRONG);"],
    ];
    assert(await off(mistakes) < most);
    for (const mistake of [1, 2]) assert(await off(mistakes, mistake) > 2 * most, `${mistake}`);
  },
);

Deno.test("products in f16 are refused by a device that has no shader-f16, and planned where none was asked", () => {
  const program = new Program();
  const graph = program.block("test");
  graph.output("y", linear(graph.input("x", [4, 8], "f32"), graph.weight("w", [3, 8], "f32"), "f16"));
  assert(plan(program, DEFAULT_DEVICE).blocks.get("test")!.dispatches.length === 2);
  assertThrows(
    () => plan(program, { ...DEFAULT_DEVICE, name: "an old GPU", shaderF16: false }),
    DeviceError,
    "shader-f16, which this device (an old GPU) does not have",
  );
});
