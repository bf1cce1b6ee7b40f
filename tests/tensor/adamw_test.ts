// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import { assertWithin, gpuTest, maxDifference, randomArray, testGpu } from "./harness.ts";
import { plant } from "./planted.ts";
import { compile } from "../../src/tensor/executable.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { adamw, ADAMW_SCALARS, type AdamwGroup, biasCorrections } from "../../src/tensor/ops/adamw.ts";
import { gradientNorm } from "../../src/tensor/ops/norms.ts";
import { plan, Program } from "../../src/tensor/plan.ts";
import { ShapeError } from "../../src/base/errors.ts";

const SETTINGS = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

interface Run {
  readonly count: number;
  readonly groups: readonly AdamwGroup[];
  readonly clip?: number;
  readonly steps: number;
  /** Called with the gradient before each step. */
  readonly spoil?: (gradient: Float32Array, step: number) => void;
  readonly plant?: readonly [string, string];
}

const learningRate = (step: number) => 0.01 / step;
const gradient = (count: number, step: number) => randomArray(count, 100 + step, 0.3 * step);

async function onGpu(gpu: Gpu, options: Run): Promise<Record<"p" | "m" | "v", Float32Array>> {
  const { count, groups, clip } = options;
  const program = new Program();
  const g = program.block("update");
  const [p, gradients, m, v] = ["p", "g", "m", "v"].map((name) => g.state(name, [count], "f32"));
  const norm = gradientNorm(gradients!);
  for (const group of groups) {
    const [updated] = adamw(p!, gradients!, m!, v!, norm, { ...SETTINGS, clip, ...group });
    if (options.plant) plant(updated!, ...options.plant);
  }
  const executable = await compile(gpu, plan(program, gpu.description));
  try {
    executable.poison();
    executable.write("p", randomArray(count, 1));
    for (let step = 1; step <= options.steps; step++) {
      const data = gradient(count, step);
      options.spoil?.(data, step);
      executable.write("g", data);
      executable.setScalar(ADAMW_SCALARS.learningRate, learningRate(step));
      for (const [name, value] of Object.entries(biasCorrections(SETTINGS, step))) {
        executable.setScalar(name, value);
      }
      executable.run("update");
    }
    const back = await executable.read(["p", "m", "v"]);
    gpu.check();
    const take = (name: string) => back.get(name)!.data.slice(0, count) as Float32Array;
    return { p: take("p"), m: take("m"), v: take("v") };
  } finally {
    executable.destroy();
  }
}

/** torch.optim.AdamW and clip_grad_norm_, line by line, in f64. */
function reference({ count, groups, clip, steps, spoil }: Run): Record<"p" | "m" | "v", Float64Array> {
  const p = Float64Array.from(randomArray(count, 1));
  const [m, v] = [new Float64Array(count), new Float64Array(count)];
  for (let step = 1; step <= steps; step++) {
    const g = gradient(count, step);
    spoil?.(g, step);
    if (!g.every(Number.isFinite)) continue;
    const norm = Math.sqrt(g.reduce((sum, x) => sum + x * x, 0));
    const factor = clip === undefined ? 1 : Math.min(1, clip / (norm + 1e-6));
    const [bias1, bias2] = [1 - SETTINGS.beta1 ** step, 1 - SETTINGS.beta2 ** step];
    for (const { first, count: size, learningRateRatio = 1, weightDecay } of groups) {
      const lr = learningRate(step) * learningRateRatio;
      for (let i = first; i < first + size; i++) {
        const gi = g[i]! * factor;
        p[i]! *= 1 - lr * weightDecay;
        m[i]! += (1 - SETTINGS.beta1) * (gi - m[i]!);
        v[i] = SETTINGS.beta2 * v[i]! + (1 - SETTINGS.beta2) * gi * gi;
        p[i]! -= lr / bias1 * m[i]! / (Math.sqrt(v[i]!) / Math.sqrt(bias2) + SETTINGS.epsilon);
      }
    }
  }
  return { p, m, v };
}

const TWO_GROUPS = [{ first: 0, count: 333, weightDecay: 0.1 }, {
  first: 384,
  count: 1500,
  learningRateRatio: 16,
  weightDecay: 0,
}];

gpuTest("adamw() follows torch.optim.AdamW over groups, with and without clipping", async (gpu) => {
  for (const clip of [undefined, 1, 1e6]) {
    const options = { count: 2000, groups: TWO_GROUPS, steps: 7, clip };
    const [actual, expected] = [await onGpu(gpu, options), reference(options)];
    assertWithin(actual.p, expected.p, 1e-6, `parameters, clip ${clip}`);
    assertWithin(actual.m, expected.m, 1e-6, `m, clip ${clip}`);
    assertWithin(actual.v, expected.v, 1e-6, `v, clip ${clip}`);
    const untouched = (x: Float32Array) => [...x.slice(333, 384), ...x.slice(1884)];
    assertEquals(untouched(actual.p), untouched(randomArray(2000, 1)));
  }
});

gpuTest("adamw() writes nothing in a step whose gradient holds NaN or infinity", async (gpu) => {
  const options: Run = {
    count: 500,
    groups: [{ first: 0, count: 500, weightDecay: 0.01 }],
    steps: 4,
    clip: 1,
    spoil: (g, step) => void (step % 2 === 0 && (g[499] = step === 2 ? NaN : -Infinity)),
  };
  const [actual, expected] = [await onGpu(gpu, options), reference(options)];
  for (const name of ["p", "m", "v"] as const) assertWithin(actual[name], expected[name], 1e-6, name);
});

gpuTest("adamw() gives the same bits when buffers and grid are cut", async (gpu, family) => {
  const options = {
    count: 50000,
    groups: [{ first: 64, count: 48001, weightDecay: 0.01 }],
    steps: 2,
    clip: 1,
  };
  const cut = await testGpu(family, { maxBindingSize: 1 << 16, maxWorkgroupsPerDimension: 5 });
  const [whole, parts] = [await onGpu(gpu, options), await onGpu(cut, options)];
  for (const name of ["p", "m", "v"] as const) assertEquals([...parts[name]], [...whole[name]]);
});

gpuTest("missing weight decay, a missing bias correction or a wrong moment do not pass", async (gpu) => {
  const options = { count: 300, groups: [{ first: 0, count: 300, weightDecay: 0.1 }], steps: 3 };
  const expected = reference(options);
  for (
    const [right, wrong] of [
      ["old_p * (1.0 - lr * size.decay)", "old_p"],
      ["sqrt(new_v) / root_bias2", "sqrt(new_v)"],
      ["let step_size = lr / step[size.bias1 / 4u][size.bias1 % 4u]", "let step_size = lr"],
      ["size.one_minus_beta2 * g * g", "size.one_minus_beta2 * g"],
    ] as const
  ) {
    const actual = await onGpu(gpu, { ...options, plant: [right, wrong] });
    assert(maxDifference(actual.p, expected.p) > 1e-4, `not noticed: ${wrong}`);
  }
});

Deno.test("adamw() refuses a group that is not aligned", () => {
  const program = new Program();
  const g = program.block("update");
  const [p, gradients, m, v] = ["p", "g", "m", "v"].map((name) => g.state(name, [100], "f32"));
  const norm = gradientNorm(gradients!);
  assertThrows(
    () => adamw(p!, gradients!, m!, v!, norm, { ...SETTINGS, first: 32, count: 10, weightDecay: 0 }),
    ShapeError,
    "elements 32..42 are not a range of 100 that begins at a multiple of 64",
  );
});
