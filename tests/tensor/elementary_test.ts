import { assertThrows } from "@std/assert";
import { ShapeError } from "../../src/errors.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { accumulate } from "../../src/tensor/ops/accumulate.ts";
import { addRow } from "../../src/tensor/ops/add_row.ts";
import { combine, scale } from "../../src/tensor/ops/combine.ts";
import { fill, fillConstant } from "../../src/tensor/ops/fill.ts";
import { Program } from "../../src/tensor/plan.ts";
import { float32ToBfloat, float32ToHalf, toFloat32 } from "../../src/formats/dtype.ts";
import { assertWithin, gpuTest, maxDifference, randomArray, run } from "./harness.ts";

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

Deno.test("combine() and addRow() name the shapes they refuse", () => {
  const program = new Program();
  const g = program.block("test");
  const [x, row] = [g.input("x", [2, 3], "f32"), g.input("row", [4], "f32")];
  assertThrows(() => combine([x, row], [1, 1]), ShapeError, "combine(f32[2, 3]");
  assertThrows(() => addRow(x, row), ShapeError, "addRow(f32[2, 3]");
});
