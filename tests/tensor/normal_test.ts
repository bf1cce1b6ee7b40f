// @ts-types="../../types/std_assert.d.ts"
import { assert } from "@std/assert";
import { philox4x32 } from "../../src/base/random.ts";
import { normal } from "../../src/tensor/ops/normal.ts";
import { assertWithin, gpuTest, maxDifference, run } from "./harness.ts";
import { plant } from "./planted.ts";

/** The bits of an integer as the float that carries them to the GPU. */
const asFloat = (n: number) => new Float32Array(Uint32Array.of(n).buffer)[0]!;

/** Box and Muller's numbers in f64 from the words that Philox gives. */
function expected(count: number, key: number, site: number): Float64Array {
  return Float64Array.from({ length: count }, (_, i) => {
    const unit = philox4x32([Math.floor(i / 4), 1, 0, 0], [key, site]).map((word) => (word + 0.5) / 2 ** 32);
    const pair = i % 4 < 2 ? 0 : 2;
    const angle = 2 * Math.PI * unit[pair + 1]!;
    return Math.sqrt(-2 * Math.log(unit[pair]!)) * (i % 2 === 0 ? Math.cos(angle) : Math.sin(angle));
  });
}

gpuTest("normal() is Box and Muller's transform of Philox in f64", async (gpu) => {
  for (const shape of [[1], [1, 5], [7, 13], [65, 64]] as const) {
    const count = shape.reduce((a: number, b) => a * b, 1);
    const { outputs } = await run(
      gpu,
      [],
      (g) => normal(g, shape, { site: 5, key: g.scalar("key") }),
      { key: asFloat(77) },
    );
    assertWithin(outputs[0]!, expected(count, 77, 5), 2e-5, `[${shape}]`);
    assert(count < 8 || maxDifference(outputs[0]!, expected(count, 77, 6)) > 0.5, "another site");
  }
});

gpuTest("normal() has the moments of N(0, 1)", async (gpu) => {
  const { outputs: [y] } = await run(
    gpu,
    [],
    (g) => normal(g, [200, 101], { site: 0, key: g.scalar("key") }),
    { key: asFloat(3) },
  );
  const moment = (n: number) => y!.reduce((sum, v) => sum + v ** n, 0) / y!.length;
  // Deviations of the four estimates for 20,200 numbers are 0.007, 0.01, 0.027 and 0.069.
  [0, 1, 0, 3].forEach((want, i) => {
    assert(
      Math.abs(moment(i + 1) - want) < [0.03, 0.04, 0.11, 0.28][i]!,
      `moment ${i + 1}: ${moment(i + 1)}`,
    );
  });
});

gpuTest("the comparison notices half a turn in place of a whole one", async (gpu) => {
  const { outputs } = await run(
    gpu,
    [],
    (g) =>
      plant(normal(g, [9, 5], { site: 5, key: g.scalar("key") }), "6.283185307179586", "3.141592653589793"),
    { key: asFloat(77) },
  );
  assert(maxDifference(outputs[0]!, expected(45, 77, 5)) > 0.1);
});
