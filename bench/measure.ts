/**
 * Timing of small traced programs on the adapter at hand, from timestamps around each kernel.
 *
 * @module
 */
import { type Gpu, openGpu } from "../src/gpu/device.ts";
import type { DeviceDescription, KernelFamily } from "../src/gpu/description.ts";
import { elementCount, type Graph, type Storage, type Tensor } from "../src/tensor/graph.ts";
import { compile, type Executable } from "../src/tensor/executable.ts";
import { plan, Program } from "../src/tensor/plan.ts";
import { bytesOf } from "../src/tensor/weight_storage.ts";

/** Time of one program, kernels only. */
export interface Measurement {
  /** Milliseconds: the fastest run, and the median of all. */
  readonly best: number;
  readonly median: number;
  /** Floating-point operations and bytes bound, by run. */
  readonly flops: number;
  readonly bytes: number;
  /** Wall time of the first run, in milliseconds: mostly compilation, unless the driver has cached it. */
  readonly first: number;
}

/** Opens the adapter for a bench and prints its name. `--tiled` runs the kernels for hardware GPUs on any adapter. */
export async function openForBench(): Promise<Gpu> {
  const family: KernelFamily | undefined = Deno.args.includes("--tiled") ? "tiled" : undefined;
  const gpu = await openGpu(family ? { describe: { family } } : {});
  console.log(`${gpu.description.name}, ${gpu.description.family} kernels`);
  return gpu;
}

/**
 * Traces `build`, runs it `repeats` times on random numbers and times its kernels.
 *
 * @param options `fill`: values of inputs by name; integers are 0 otherwise. `device`: what planning takes the device for
 */
export async function measure(
  gpu: Gpu,
  build: (graph: Graph) => Tensor | readonly Tensor[],
  options: {
    repeats?: number;
    fill?: Readonly<Record<string, Int32Array | Float32Array>>;
    scalars?: Record<string, number>;
    device?: DeviceDescription;
  } = {},
): Promise<Measurement> {
  const program = new Program();
  const graph = program.block("bench");
  [build(graph)].flat().forEach((t, i) => graph.output(`y${i}`, t as Tensor));
  const executable = await compile(gpu, plan(program, options.device ?? gpu.description), { profile: true });
  try {
    for (const storage of program.storages.values()) fillStorage(executable, storage, options.fill ?? {});
    executable.setScalars(Object.entries(options.scalars ?? {}));
    const times: number[] = [];
    let [flops, bytes, first] = [0, 0, 0];
    for (let i = -1; i < (options.repeats ?? 10); i++) {
      const begin = performance.now();
      executable.run("bench");
      const kernels = await executable.profiler!.report();
      executable.profiler!.reset();
      if (i < 0) {
        first = performance.now() - begin;
        continue;
      }
      times.push(kernels.reduce((sum, k) => sum + k.milliseconds, 0));
      flops = kernels.reduce((sum, k) => sum + k.flops, 0);
      bytes = kernels.reduce((sum, k) => sum + k.bytes, 0);
    }
    gpu.check();
    times.sort((a, b) => a - b);
    return { best: times[0]!, median: times[times.length >> 1]!, flops, bytes, first };
  } finally {
    executable.destroy();
  }
}

/** Prints one line: time, and the rate that bounds the kernel. */
export function line(name: string, m: Measurement, rate: "GFLOP/s" | "GB/s"): void {
  const value = (rate === "GFLOP/s" ? m.flops : m.bytes) / m.best / 1e6;
  console.log(
    `${name.padEnd(44)} ${m.best.toFixed(3).padStart(9)} ms  median ${m.median.toFixed(3).padStart(9)} ms` +
      `  ${value.toFixed(1).padStart(8)} ${rate}  first run ${m.first.toFixed(0).padStart(5)} ms`,
  );
}

function fillStorage(
  executable: Executable,
  storage: Storage,
  given: Readonly<Record<string, Int32Array | Float32Array>>,
): void {
  const count = elementCount(storage.shape);
  if (given[storage.name]) executable.write(storage.name, given[storage.name]!);
  else if (storage.dtype === "i32" || storage.dtype === "u32") {
    executable.write(storage.name, new Int32Array(count));
  } else if (storage.name === "nothing") return;
  else if (bytesOf(storage.dtype, 1) === 2) {
    // Small numbers in either half-precision type.
    executable.write(storage.name, Uint16Array.from({ length: count }, (_, i) => 0x3800 + (i * 37) % 128));
  } else {
    executable.write(
      storage.name,
      Float32Array.from({ length: count }, (_, i) => ((i * 7919) % 2001) / 1000 - 1),
    );
  }
}
