// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { gpuTest, run, testGpu } from "./harness.ts";
import { operand } from "./oracle.ts";
import { plant } from "./planted.ts";
import { clippingFactor, gradientNorm } from "../../src/tensor/ops/norms.ts";
import type { Gpu } from "../../src/gpu/device.ts";

function norm(x: Float32Array): number {
  let sum = 0;
  for (const v of x) sum += v * v;
  return Math.sqrt(sum);
}

async function measured(gpu: Gpu, x: Float32Array): Promise<[number, number]> {
  const { outputs } = await run(
    gpu,
    [{ shape: [x.length], kind: "state", data: x }],
    (_, x) => gradientNorm(x!),
  );
  return [outputs[0]![0]!, outputs[0]![1]!];
}

gpuTest("gradientNorm() is exact to f32 rounding at any length", async (gpu) => {
  for (const count of [1, 3, 4, 255, 16383, 16384, 16385, 100003, 1 << 20]) {
    const x = operand([count], count).values;
    const [value, flag] = await measured(gpu, x);
    assert(Math.abs(value / norm(x) - 1) < 3e-7, `${count}: ${value}, expected ${norm(x)}`);
    assertEquals(flag, 0);
  }
});

gpuTest("gradientNorm() does not lose small elements beside many others", async (gpu) => {
  // One by one in f32, the sum of squares would stop growing at 2^24 of them.
  const count = (1 << 24) + (1 << 22) + 5;
  const [value] = await measured(gpu, new Float32Array(count).fill(1));
  assert(Math.abs(value / Math.sqrt(count) - 1) < 3e-7, `${value}, expected ${Math.sqrt(count)}`);
});

gpuTest("gradientNorm() flags NaN and infinity wherever they are", async (gpu) => {
  for (const bad of [NaN, Infinity, -Infinity]) {
    for (const at of [0, 17, 16384, 49999]) {
      const x = operand([50000], 1).values;
      x[at] = bad;
      const [value, flag] = await measured(gpu, x);
      assertEquals([flag, Number.isFinite(value)], [1, false], `${bad} at ${at}`);
    }
  }
  assertEquals(await measured(gpu, Float32Array.of(1e30, 0, 0)), [Infinity, 0]);
});

gpuTest("gradientNorm() gives the same bits when tensor and grid are cut", async (gpu, family) => {
  const x = operand([300001], 4).values;
  const cut = await testGpu(family, { maxBindingSize: 1 << 18, maxWorkgroupsPerDimension: 2 });
  assertEquals(await measured(cut, x), await measured(gpu, x));
});

gpuTest("a norm that forgets an element, or NaN, does not pass", async (gpu) => {
  const x = new Float32Array(20000).fill(1);
  x[19999] = NaN;
  const value = { shape: [x.length], kind: "state", data: x } as const;
  const broken = (right: string, wrong: string) =>
    run(gpu, [value], (_, x) => plant(gradientNorm(x!), right, wrong));
  assertEquals((await broken("== vec4<u32>(0x7f800000u)", "== vec4<u32>(0x7f800001u)")).outputs[0]![1], 0);
  x[19999] = 1;
  const short = (await broken("< vec4<u32>(size.elements)", "< vec4<u32>(size.elements - 1u)"))
    .outputs[0]![0]!;
  assert(Math.abs(short / norm(x) - 1) > 1e-5);
});

gpuTest("clippingFactor() is what AdamW multiplies by, and 0 where it writes nothing", async (gpu) => {
  const factor = async (norm: [number, number], clip?: number, mistake = false) => {
    const value = { shape: [2], kind: "state" as const, data: Float32Array.of(...norm) };
    const { outputs } = await run(gpu, [value], (_, norm) => {
      const made = clippingFactor(norm!, clip);
      return mistake ? plant(made, "norm[1] != 0.0", "norm[1] > 1.0") : made;
    });
    return outputs[0]![0];
  };
  assertEquals(await factor([4, 0], 1), Math.fround(1 / (4 + 1e-6)));
  assertEquals(await factor([0.5, 0], 1), 1);
  assertEquals(await factor([4, 0]), 1);
  for (const bad of [NaN, Infinity]) {
    assertEquals([await factor([bad, 1], 1), await factor([bad, 1])], [0, 0]);
    assert(await factor([bad, 1], undefined, true) !== 0);
  }
});
