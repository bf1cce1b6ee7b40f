/**
 * Time by kernel, from timestamp queries: one compute pass a kernel, which costs more than a plain step does, so shares are to be
 * trusted and the sum is not.
 *
 * @module
 */
import { DeviceError } from "../base/errors.ts";
import { BUFFER_USAGE, MAP_READ } from "./buffer_usage.ts";
import type { Gpu } from "./device.ts";

/** What the profiler needs to know of a launch. */
export interface ProfiledLaunch {
  readonly planned: {
    readonly kernel: string;
    readonly flops: number;
    readonly bytes: number;
    readonly groups: readonly [number, number, number];
  };
  readonly pipeline: { readonly raw: GPUComputePipeline };
  readonly group: GPUBindGroup;
}

/** One line of the profile. */
export interface KernelTime {
  readonly kernel: string;
  launches: number;
  milliseconds: number;
  flops: number;
  /** Bytes of all bindings. */
  bytes: number;
}

type Query = { set: GPUQuerySet; resolve: GPUBuffer; read: GPUBuffer; launches: readonly ProfiledLaunch[] };

/** Collects times over any number of runs; {@linkcode Profiler.report} sums them by kernel. */
export class Profiler {
  readonly #gpu: Gpu;
  readonly #pending: Query[] = [];
  readonly #times = new Map<string, KernelTime>();

  constructor(gpu: Gpu) {
    if (!gpu.features.has("timestamp-query")) {
      throw new DeviceError("this adapter has no timestamps, so kernels cannot be timed", {
        hint: "run without --profile",
      });
    }
    this.#gpu = gpu;
  }

  /** Encodes the launches, each in a pass with a timestamp before and after. */
  encode(encoder: GPUCommandEncoder, launches: readonly ProfiledLaunch[]): void {
    const { device } = this.#gpu;
    for (let from = 0; from < launches.length; from += 1024) {
      const part = launches.slice(from, from + 1024);
      const set = device.createQuerySet({ type: "timestamp", count: part.length * 2 });
      const bytes = part.length * 16;
      const resolve = device.createBuffer({
        size: bytes,
        usage: BUFFER_USAGE.timestamps,
      });
      const read = device.createBuffer({
        size: bytes,
        usage: BUFFER_USAGE.readBack,
      });
      part.forEach((launch, i) => {
        const pass = encoder.beginComputePass({
          timestampWrites: {
            querySet: set,
            beginningOfPassWriteIndex: 2 * i,
            endOfPassWriteIndex: 2 * i + 1,
          },
        });
        pass.setPipeline(launch.pipeline.raw);
        pass.setBindGroup(0, launch.group);
        pass.dispatchWorkgroups(...launch.planned.groups);
        pass.end();
      });
      encoder.resolveQuerySet(set, 0, part.length * 2, resolve, 0);
      encoder.copyBufferToBuffer(resolve, 0, read, 0, bytes);
      this.#pending.push({ set, resolve, read, launches: part });
    }
  }

  /** Waits for everything encoded so far and returns the times by kernel, longest first. */
  async report(): Promise<KernelTime[]> {
    for (const { set, resolve, read, launches } of this.#pending.splice(0)) {
      await read.mapAsync(MAP_READ);
      const ticks = new BigUint64Array(read.getMappedRange().slice(0));
      launches.forEach(({ planned }, i) => {
        const time = this.#times.get(planned.kernel) ??
          { kernel: planned.kernel, launches: 0, milliseconds: 0, flops: 0, bytes: 0 };
        time.launches++;
        time.milliseconds += Number(ticks[2 * i + 1]! - ticks[2 * i]!) / 1e6;
        time.flops += planned.flops;
        time.bytes += planned.bytes;
        this.#times.set(planned.kernel, time);
      });
      read.destroy();
      resolve.destroy();
      set.destroy();
    }
    return [...this.#times.values()].sort((a, b) => b.milliseconds - a.milliseconds);
  }

  /** Forgets all times measured so far. */
  reset(): void {
    this.#times.clear();
  }

  destroy(): void {
    for (const { set, resolve, read } of this.#pending.splice(0)) {
      set.destroy();
      resolve.destroy();
      read.destroy();
    }
  }
}
