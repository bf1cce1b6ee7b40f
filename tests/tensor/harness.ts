/**
 * Runs small traced programs on the device at hand, with outputs poisoned and errors made loud.
 *
 * @module
 */
import { type Gpu, openGpu } from "../../src/gpu/device.ts";
import type { DeviceDescription, KernelFamily } from "../../src/gpu/description.ts";
import { type DType, type Graph, type Tensor } from "../../src/tensor/graph.ts";
import { compile } from "../../src/tensor/executable.ts";
import { plan, Program } from "../../src/tensor/plan.ts";

/** The kernel families a test runs; both run on a software device. */
export const FAMILIES: readonly KernelFamily[] = ["subgroup8", "tiled"];

/**
 * The smallest tile for every product, and so one text for each orientation and number of terms, quickly compiled, instead of up to six by
 * the number of rows and columns. What each tile computes is for the tests of the op; `equivalence_test.ts`, the goldens and whatever runs
 * in a process of its own take the device's own.
 */
const SMALLEST_TILES = new Proxy<Record<string, string>>({}, {
  get: (_, key) => typeof key === "string" && key.startsWith("matmul ") ? "subgroup8 8x8" : undefined,
});

const opened = new Map<string, Promise<Gpu>>();

/**
 * One device for each description, shared by the tests of a file; where no family is named with the device's own kernels, of those for
 * products the one with the smallest tile.
 */
export function testGpu(family?: KernelFamily, describe: Partial<DeviceDescription> = {}): Promise<Gpu> {
  const key = family + JSON.stringify(describe);
  let gpu = opened.get(key);
  const kernels = family ? { family } : { kernels: SMALLEST_TILES };
  if (!gpu) opened.set(key, gpu = openGpu({ describe: { ...kernels, ...describe } }));
  return gpu;
}

/** Registers one GPU test for each kernel family. Buffers must be back where they were when it ends. */
export function gpuTest(name: string, fn: (gpu: Gpu, family: KernelFamily) => Promise<void>): void {
  for (const family of FAMILIES) {
    Deno.test({
      name: `${name} [${family}]`,
      sanitizeResources: false,
      sanitizeOps: false,
      async fn(t) {
        const gpu = await testGpu(family);
        if (family === "subgroup8" && gpu.description.subgroupSize !== 8) {
          console.log(`skip: ${t.name}: this device's subgroups do not have 8 lanes`);
          return;
        }
        await freeing(gpu, () => fn(gpu, family));
      },
    });
  }
}

/** Registers one GPU test with the kernels for hardware. Buffers must be back where they were when it ends. */
export function hardwareTest(name: string, fn: (gpu: Gpu) => Promise<void>): void {
  Deno.test({
    name,
    sanitizeResources: false,
    sanitizeOps: false,
    async fn() {
      const gpu = await testGpu("tiled");
      await freeing(gpu, () => fn(gpu));
    },
  });
}

/**
 * Registers one GPU test of a whole model, with the kernels of the device at hand. Tests of single ops run every kernel of both
 * families, and `equivalence_test.ts` and the goldens whole models on both, so here a second family would compile much to learn little.
 */
export function modelTest(name: string, fn: (gpu: Gpu) => Promise<void>): void {
  Deno.test({
    name,
    sanitizeResources: false,
    sanitizeOps: false,
    async fn() {
      const gpu = await testGpu();
      await freeing(gpu, () => fn(gpu));
    },
  });
}

/** Buffers must be back where they were. */
export async function freeing(gpu: Gpu, fn: () => Promise<void>): Promise<void> {
  const before = gpu.allocatedBytes;
  await fn();
  await gpu.idle();
  if (gpu.allocatedBytes !== before) {
    throw new Error(`${gpu.allocatedBytes - before} bytes of GPU memory were not freed`);
  }
}

/** A value for an input of {@linkcode run}. f16 and bf16 data are given as their 16-bit patterns. */
export interface Value {
  readonly shape: readonly number[];
  readonly dtype?: DType;
  /** How the program declares it; `input` by default. */
  readonly kind?: "input" | "weight" | "state";
  readonly data: Float32Array | Int32Array | Uint32Array | Uint16Array;
}

/** What {@linkcode run} gives back. */
export interface RunResult {
  /** Each traced output. */
  readonly outputs: Float32Array[];
  /** The content of each input afterwards: states may have changed. */
  readonly inputs: Float32Array[];
}

/**
 * Traces `build` over the given values, runs it once on poisoned memory and reads everything back.
 *
 * @param scalars Step scalars by name; the program may do without some
 * @param device What planning takes the device for
 */
export async function run(
  gpu: Gpu,
  values: readonly Value[],
  build: (graph: Graph, ...inputs: Tensor[]) => Tensor | readonly Tensor[],
  scalars: Record<string, number> = {},
  device: DeviceDescription = gpu.description,
): Promise<RunResult> {
  const program = new Program();
  const graph = program.block("test");
  const inputs = values.map((v, i) =>
    graph.use({
      kind: v.kind ?? "input",
      name: `x${i}`,
      shape: v.shape,
      dtype: v.dtype ?? "f32",
      category: "test",
    })
  );
  const made = build(graph, ...inputs);
  const outputs = Array.isArray(made) ? made as Tensor[] : [made as Tensor];
  outputs.forEach((t, i) => graph.output(`y${i}`, t));
  const executable = await compile(gpu, plan(program, device));
  try {
    executable.poison();
    values.forEach((v, i) => executable.write(`x${i}`, v.data));
    executable.setScalars(Object.entries(scalars));
    executable.run("test");
    const back = await executable.read(outputs.map((_, i) => `y${i}`), "test");
    const after = await executable.read(values.map((_, i) => `x${i}`));
    gpu.check();
    const trim = (data: ArrayLike<number> & { slice(a: number, b: number): unknown }, count: number) =>
      data.slice(0, count) as Float32Array;
    return {
      outputs: outputs.map((t, i) => trim(back.get(`y${i}`)!.data, t.shape.reduce((a, b) => a * b, 1))),
      inputs: values.map((v, i) => trim(after.get(`x${i}`)!.data, v.shape.reduce((a, b) => a * b, 1))),
    };
  } finally {
    executable.destroy();
  }
}

/** The names of the kernels that a device launches for a traced block, in their order. */
export function kernelsOf(device: DeviceDescription, trace: (graph: Graph) => void): string[] {
  const program = new Program();
  trace(program.block("test"));
  return plan(program, device).blocks.get("test")!.dispatches.map(({ kernel }) => kernel);
}

/** Deterministic pseudo-random numbers in [-scale, scale). */
export function randomArray(count: number, seed: number, scale = 1): Float32Array {
  let state = seed >>> 0 || 1;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return ((state / 2 ** 31) - 1) * scale;
  });
}

/** The largest absolute difference; NaN anywhere counts as infinite. */
export function maxDifference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) {
    throw new Error(`${actual.length} values where ${expected.length} were expected`);
  }
  let worst = 0;
  for (let i = 0; i < actual.length; i++) {
    const d = Math.abs(actual[i]! - expected[i]!);
    if (!(d <= worst)) worst = Number.isNaN(d) ? Infinity : d;
  }
  return worst;
}

/** The length of the difference over the length of what was expected. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let [difference, whole] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    difference += (actual[i]! - expected[i]!) ** 2;
    whole += expected[i]! ** 2;
  }
  return Math.sqrt(difference / whole);
}

/** Fails unless every value is within `tolerance`. */
export function assertWithin(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  what = "values",
): void {
  const worst = maxDifference(actual, expected);
  if (!(worst <= tolerance)) throw new Error(`${what} differ by ${worst}, more than ${tolerance}`);
}
