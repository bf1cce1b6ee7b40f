// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { compile, erf, variable } from "../../src/tensor/expr/mod.ts";
import { activate, type Activation, ACTIVATIONS, gated } from "../../src/tensor/ops/activation.ts";
import { pointwise } from "../../src/tensor/ops/pointwise.ts";
import { Program } from "../../src/tensor/plan.ts";
import { assertWithin, gpuTest, maxDifference, run } from "./harness.ts";
import { numericGradient, operand } from "./oracle.ts";
import { plant } from "./planted.ts";

const erf64 = (x: number) => compile([erf(variable("x"))], ["x"])([x])[0]!;

/** As their papers have them. */
const DEFINITIONS: Record<Activation, (x: number) => number> = {
  silu: (x) => x / (1 + Math.exp(-x)),
  gelu: (x) => x / 2 * (1 + erf64(x / Math.sqrt(2))),
  gelu_tanh: (x) => x / 2 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
};

for (const activation of Object.keys(ACTIVATIONS) as Activation[]) {
  const f = DEFINITIONS[activation];
  gpuTest(`${activation}, gated and not, and its gradients match f64`, async (gpu) => {
    // In vectors of four, and not.
    for (const shape of [[5, 8], [3, 7]]) {
      const [gate, up, dy] = [1, 2, 3].map((seed) => operand(shape, seed));
      gate!.values.forEach((g, i) => gate!.values[i] = 6 * g);
      const { outputs } = await run(gpu, [gate!, up!, dy!], (graph, g, u, d) => {
        const [plain, y] = [activate(g!, activation), gated(g!, u!, activation)];
        return [plain, ...gradients(graph, [[plain, d!]], [g!]), y, ...gradients(graph, [[y, d!]], [g!, u!])]
          .map((t) => t!);
      });
      const [g, u] = [gate!.values, up!.values];
      const plain = (g: ArrayLike<number>) => Array.from(g, f);
      const product = (g: ArrayLike<number>, u: ArrayLike<number>) => Array.from(g, (x, i) => f(x) * u[i]!);
      const wanted = [
        plain(g),
        numericGradient(plain, g, dy!.values),
        product(g, u),
        numericGradient((x) => product(x, u), g, dy!.values),
        numericGradient((x) => product(g, x), u, dy!.values),
      ];
      wanted.forEach((w, i) => assertWithin(outputs[i]!, w, 3e-6, `${shape}: result ${i}`));
    }
  });
}

gpuTest("activations are finite at extremes, and keep NaN", async (gpu) => {
  const x = { shape: [8], data: Float32Array.of(-1e8, -200, -13, 0, 13, 200, 1e8, NaN) };
  for (const activation of ["gelu", "gelu_tanh"] as const) {
    const { outputs } = await run(
      gpu,
      [x, { shape: [8], data: new Float32Array(8).fill(1) }],
      (graph, x, one) => {
        const y = activate(x!, activation);
        return [y, gradients(graph, [[y, one!]], [x!])[0]!];
      },
    );
    assertWithin(outputs[0]!.slice(0, 7), [0, 0, 0, 0, 13, 200, 1e8], 1e-6, activation);
    assertWithin(outputs[1]!.slice(0, 7), [0, 0, 0, 0.5, 1, 1, 1], 1e-6, `d ${activation}`);
    for (const out of outputs) assert(Number.isNaN(out[7]), `${activation}: NaN became ${out[7]}`);
  }
});

gpuTest("erf() is exact to f32 over its whole range", async (gpu) => {
  const x = { shape: [9000], data: Float32Array.from({ length: 9000 }, (_, i) => (i - 4500) / 900) };
  const { outputs } = await run(gpu, [x], (_, x) => pointwise([x!], (x) => erf(x!)));
  const expected = Array.from(x.data, erf64);
  assertWithin(outputs[0]!, expected, 1.5e-7);
  expected.forEach((e, i) => {
    const relative = Math.abs(outputs[0]![i]! - e) / Math.abs(e);
    assert(e === 0 || relative < 3e-7, `erf(${x.data[i]}) is off by ${relative} of itself`);
  });
});

gpuTest("the one gelu for the other, or an error function of one term less, does not pass", async (gpu) => {
  const x = { shape: [64], data: Float32Array.from({ length: 64 }, (_, i) => (i - 32) / 10) };
  const { outputs } = await run(gpu, [x], (_, x) => [
    activate(x!, "gelu_tanh"),
    plant(activate(x!, "gelu"), "- t * 0.0196050299", ""),
    plant(activate(x!, "gelu"), "- z * 0.0000001636584469", ""),
  ]);
  const expected = Array.from(x.data, DEFINITIONS.gelu);
  outputs.forEach((out, i) => {
    const difference = maxDifference(out, expected);
    assert(difference > [1e-4, 1e-3, 1.5e-7][i]!, `${i}: ${difference}`);
  });
});

Deno.test("activations have the values that PyTorch prints", () => {
  const at = (activation: Activation, x: number) =>
    compile([ACTIVATIONS[activation](variable("x"))], ["x"])([x])[0]!;
  assertAlmostEquals(at("gelu", 1), 0.8413447460685429, 1e-15);
  assertAlmostEquals(at("gelu_tanh", 1), 0.8411919906082768, 1e-15);
  assertAlmostEquals(at("silu", 1), 0.7310585786300049, 1e-15);
});

Deno.test("gated() refuses a gate of another shape", () => {
  const g = new Program().block("test");
  const [gate, up] = [g.input("gate", [4, 8], "f32"), g.input("up", [8], "f32")];
  for (const activation of ["silu", "gelu"] as const) {
    assertThrows(() => gated(gate, up, activation), ShapeError, "shapes must be equal");
  }
});
