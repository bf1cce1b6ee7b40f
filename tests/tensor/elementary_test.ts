import { assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { accumulate } from "../../src/tensor/ops/accumulate.ts";
import { addRow } from "../../src/tensor/ops/add_row.ts";
import { combine, scale } from "../../src/tensor/ops/combine.ts";
import { fill, fillConstant } from "../../src/tensor/ops/fill.ts";
import { matmul } from "../../src/tensor/ops/matmul.ts";
import { Program } from "../../src/tensor/plan.ts";
import { float32ToBfloat, float32ToHalf, toFloat32 } from "../../src/formats/dtype.ts";
import { assertWithin, gpuTest, maxDifference, randomArray, run } from "./harness.ts";
import { numericGradient } from "./oracle.ts";
import { plant } from "./planted.ts";

for (const [T, N] of [[1, 1], [3, 5], [17, 64], [33, 67]] as const) {
  gpuTest(`combine(), with an operand twice, and its gradients equal f64 [${T}, ${N}]`, async (gpu) => {
    const [a, b, dy] = [1, 2, 3].map((seed) => randomArray(T * N, seed)) as [
      Float32Array,
      Float32Array,
      Float32Array,
    ];
    const { outputs } = await run(
      gpu,
      [a, b, dy].map((data) => ({ shape: [T, N], data })),
      (g, a, b, dy) => {
        const y = combine([a!, b!, scale(a!, 3)], [0.5, -2, 1]);
        return [y, ...gradients(g, [[y, dy!]], [a!, b!]).map((t) => t!)];
      },
    );
    const expected = Array.from(a, (v, i) => 3.5 * v - 2 * b[i]!);
    assertWithin(outputs[0]!, expected, 2e-6);
    assertWithin(outputs[1]!, Array.from(dy, (v) => 3.5 * v), 2e-6);
    assertWithin(outputs[2]!, Array.from(dy, (v) => -2 * v), 2e-6);
    // The comparison must see a wrong factor.
    if (maxDifference(outputs[0]!, Array.from(a, (v, i) => 3 * v - 2 * b[i]!)) < 1e-3) {
      throw new Error("blind");
    }
  });

  for (const dtype of ["f32", "f16", "bf16"] as const) {
    gpuTest(
      `addRow() adds a ${dtype} row to every row and hands its gradient on [${T}, ${N}]`,
      async (gpu) => {
        const [x, values, dy] = [randomArray(T * N, 4), randomArray(N, 5), randomArray(T * N, 6)];
        const row = dtype === "f16"
          ? float32ToHalf(values)
          : dtype === "bf16"
          ? float32ToBfloat(values)
          : new Float32Array(values);
        const exact = toFloat32(dtype, row);
        // Odd counts of 16-bit values are padded to whole words, as uploads pad them.
        const data = row instanceof Uint16Array && row.length % 2 ? Uint16Array.from([...row, 0]) : row;
        const { outputs } = await run(
          gpu,
          [{ shape: [T, N], data: x }, { shape: [N], dtype, kind: "weight", data }, {
            shape: [T, N],
            data: dy,
          }],
          (g, x, row, dy) => {
            const y = addRow(x!, row!);
            return [y, gradients(g, [[y, dy!]], [x!])[0]!];
          },
        );
        assertWithin(outputs[0]!, Array.from(x, (v, i) => v + exact[i % N]!), 1e-6);
        assertWithin(outputs[1]!, dy, 0);
      },
    );
  }

  gpuTest(`fill() and fillConstant() write every element [${T}, ${N}]`, async (gpu) => {
    const { outputs } = await run(
      gpu,
      [],
      (g) => [fill(g, [T, N], g.scalar("value")), fillConstant(g, [T, N], -2)],
      { value: 1.25 },
    );
    assertWithin(outputs[0]!, new Array(T * N).fill(1.25), 0);
    assertWithin(outputs[1]!, new Array(T * N).fill(-2), 0);
  });

  gpuTest(`accumulate() leaves what lies behind its state alone [${T}, ${N}]`, async (gpu) => {
    const [state, value] = [randomArray(T * N, 7), randomArray(T * N, 8)];
    const { inputs } = await run(
      gpu,
      [{ shape: [T, N], kind: "state", data: state }, { shape: [T, N], data: value }],
      (g, state, value) => accumulate(state!, value!, g.scalar("keep")),
      { keep: 0.5 },
    );
    assertWithin(inputs[0]!, Array.from(state, (v, i) => 0.5 * v + value[i]!), 1e-6);
  });
}

for (const [T, N] of [[1, 1], [2, 63], [65, 4], [33, 130]] as const) {
  gpuTest(
    `the gradient of the row of addRow() equals f64 and central differences [${T}, ${N}]`,
    async (gpu) => {
      const [x, row, dy] = [randomArray(T * N, 9), randomArray(N, 10), randomArray(T * N, 11)];
      const { outputs } = await run(
        gpu,
        [{ shape: [T, N], data: x }, { shape: [N], data: row }, { shape: [T, N], data: dy }],
        (g, x, row, dy) => gradients(g, [[addRow(x!, row!), dy!]], [x!, row!]).map((t) => t!),
      );
      assertWithin(outputs[0]!, dy, 0);
      const sums = new Float64Array(N);
      dy.forEach((v, i) => sums[i % N]! += v);
      assertWithin(outputs[1]!, sums, 1e-5);
      const add = (values: ArrayLike<number>) => Float64Array.from(x, (v, i) => v + values[i % N]!);
      assertWithin(outputs[1]!, numericGradient(add, row, dy), 1e-5);
    },
  );
}

gpuTest("a gradient of a row that leaves the first row of dy out does not pass", async (gpu) => {
  const [T, N] = [9, 5];
  const [x, row, dy] = [randomArray(T * N, 9), randomArray(N, 10), randomArray(T * N, 11)];
  const { outputs } = await run(
    gpu,
    [{ shape: [T, N], data: x }, { shape: [N], data: row }, { shape: [T, N], data: dy }],
    (g, x, row, dy) => {
      const [gradient] = gradients(g, [[addRow(x!, row!), dy!]], [row!]);
      return plant(gradient!, "var t = block;", "var t = max(block, 1u);");
    },
  );
  const add = (values: ArrayLike<number>) => Float64Array.from(x, (v, i) => v + values[i % N]!);
  if (maxDifference(outputs[0]!, numericGradient(add, row, dy)) < 0.01) throw new Error("blind");
});

gpuTest("accumulate() with a factor of 1 adds, also into the product before it", async (gpu) => {
  const [state, value, x] = [randomArray(35, 12), randomArray(35, 13), randomArray(15, 14)];
  for (const planted of [false, true]) {
    const { inputs } = await run(
      gpu,
      [
        { shape: [5, 7], kind: "state", data: state },
        { shape: [5, 7], data: value },
        { shape: [3, 5], data: x },
        { shape: [3, 7], data: value.slice(0, 21) },
        { shape: [5, 7], kind: "state", data: state },
      ],
      (_, state, value, x, y, other) => {
        accumulate(other!, matmul("TN", x!, y!), 1);
        const sum = accumulate(state!, value!, 1);
        return planted ? plant(sum, "let keep = 1.0;", "let keep = 0.0;") : sum;
      },
    );
    const expected = Array.from(state, (v, i) => v + value[i]!);
    const close = maxDifference(inputs[0]!, expected) < 1e-6;
    if (close === planted) throw new Error(planted ? "blind" : "the sum is wrong");
    const product = Array.from({ length: 35 }, (_, i) => {
      const [m, n] = [Math.floor(i / 7), i % 7];
      return state[i]! + [0, 1, 2].reduce((sum, k) => sum + x[k * 5 + m]! * value[k * 7 + n]!, 0);
    });
    assertWithin(inputs[4]!, product, 2e-6);
  }
});

Deno.test("combine() and addRow() name the shapes they refuse", () => {
  const program = new Program();
  const g = program.block("test");
  const [x, row] = [g.input("x", [2, 3], "f32"), g.input("row", [4], "f32")];
  assertThrows(() => combine([x, row], [1, 1]), ShapeError, "combine(f32[2, 3]");
  assertThrows(() => addRow(x, row), ShapeError, "addRow(f32[2, 3]");
});
