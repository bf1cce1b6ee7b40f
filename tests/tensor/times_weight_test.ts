// @ts-types="../../types/std_assert.d.ts"
import { assert, assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { timesWeight } from "../../src/tensor/ops/times_weight.ts";
import { Program } from "../../src/tensor/plan.ts";
import { assertWithin, gpuTest, maxDifference, run, testGpu } from "./harness.ts";
import { numericGradient, operand } from "./oracle.ts";
import { plant } from "./planted.ts";

const SHAPES = [[1, 1], [3, 7], [16, 16], [33, 31]] as const;

gpuTest("timesWeight() and its gradient equal f64 for every storage type", async (gpu) => {
  for (const dtype of ["f32", "f16", "bf16"] as const) {
    for (const shape of SHAPES) {
      const [x, w, dy] = [operand(shape, 1), operand(shape, 2, dtype, "weight"), operand(shape, 3)];
      const { outputs } = await run(gpu, [x, w, dy], (g, x, w, dy) => {
        const y = timesWeight(x!, w!);
        return [y, gradients(g, [[y, dy!]], [x!])[0]!];
      });
      const f = (x: ArrayLike<number>) => Float64Array.from(x, (v, i) => v * w.values[i]!);
      assertWithin(outputs[0]!, f(x.values), 1e-7, `${dtype} [${shape}]`);
      assertWithin(
        outputs[1]!,
        numericGradient(f, x.values, dy.values),
        1e-6,
        `gradient ${dtype} [${shape}]`,
      );
    }
  }
});

gpuTest("timesWeight() is the same in parts, where a binding is small", async (_, family) => {
  const gpu = await testGpu(family, { maxBindingSize: 1024 });
  for (const dtype of ["f32", "f16"] as const) {
    const [x, w] = [operand([33, 31], 1), operand([33, 31], 2, dtype, "weight")];
    const { outputs } = await run(gpu, [x, w], (_, x, w) => timesWeight(x!, w!));
    assertWithin(outputs[0]!, x.values.map((v, i) => v * w.values[i]!), 1e-7, dtype);
  }
});

gpuTest("the comparison notices a weight that is read one place off", async (gpu) => {
  const [x, w] = [operand([5, 7], 1), operand([5, 7], 2, "f16", "weight")];
  const { outputs } = await run(
    gpu,
    [x, w],
    (_, x, w) => plant(timesWeight(x!, w!), "[i % 2u]", "[1u - i % 2u]"),
  );
  assert(maxDifference(outputs[0]!, x.values.map((v, i) => v * w.values[i]!)) > 1e-2);
});

Deno.test("timesWeight() refuses other shapes", () => {
  const program = new Program();
  const g = program.block("test");
  assertThrows(
    () => timesWeight(g.input("x", [2, 3], "f32"), g.weight("w", [3, 2], "f16")),
    ShapeError,
    "both shapes must be equal",
  );
});
