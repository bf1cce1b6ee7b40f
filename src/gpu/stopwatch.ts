/**
 * How long pieces of work take on the device, measured in turn, so that whatever else the machine does meets them alike.
 *
 * @module
 */
import { BUFFER_USAGE } from "./buffer_usage.ts";
import type { Gpu } from "./device.ts";
import type { ProfiledLaunch } from "./profiler.ts";
import { ReadBack } from "./read_back.ts";

/** A piece of work. */
export interface Track {
  readonly launches: readonly ProfiledLaunch[];
  /** How often it is done in a pass: short work drowns in what surrounds it. */
  readonly turns: number;
}

/** Seconds that a pass should take to be told from what surrounds it: where the device has timestamps, and where it has none. */
export const AIMED_SECONDS = { timestamps: 1e-3, wall: 60e-3 } as const;

/** WebGPU's `GPUBufferUsage.QUERY_RESOLVE`. */
const QUERY_RESOLVE = 0x200;

/**
 * Does all tracks in turn, `rounds` times.
 *
 * By timestamps around a pass where the device has them; else by the clock, a wait of some milliseconds included.
 *
 * @returns of each track, the seconds of one turn in each round
 * @throws {DeviceError} if an operation failed
 */
export async function timeInTurn(gpu: Gpu, tracks: readonly Track[], rounds: number): Promise<number[][]> {
  if (gpu.features.has("timestamp-query")) {
    const times = await byTimestamps(gpu, tracks, rounds);
    // Coarse ones do not tell short work from none.
    if (times.flat().every((seconds) => seconds > 0)) return times;
  }
  return await byClock(gpu, tracks, rounds);
}

async function byTimestamps(gpu: Gpu, tracks: readonly Track[], rounds: number): Promise<number[][]> {
  const { device } = gpu;
  const bytes = tracks.length * rounds * 16;
  const querySet = device.createQuerySet({ type: "timestamp", count: bytes / 8 });
  const resolved = device.createBuffer({ size: bytes, usage: QUERY_RESOLVE | BUFFER_USAGE.uniform });
  const staging = new ReadBack(device, bytes, "timestamps");
  try {
    for (let round = 0; round < rounds; round++) {
      // A submit for each round: one of all might last longer than a driver's patience.
      const encoder = device.createCommandEncoder();
      tracks.forEach((track, i) => {
        const at = 2 * (round * tracks.length + i);
        encode(encoder, track, {
          timestampWrites: { querySet, beginningOfPassWriteIndex: at, endOfPassWriteIndex: at + 1 },
        });
      });
      device.queue.submit([encoder.finish()]);
    }
    const encoder = device.createCommandEncoder();
    encoder.resolveQuerySet(querySet, 0, bytes / 8, resolved, 0);
    encoder.copyBufferToBuffer(resolved, 0, staging.raw, 0, bytes);
    device.queue.submit([encoder.finish()]);
    const ticks = new BigUint64Array(await staging.take(bytes));
    gpu.check();
    return tracks.map(({ turns }, i) =>
      Array.from({ length: rounds }, (_, round) => {
        const at = 2 * (round * tracks.length + i);
        return Number(ticks[at + 1]! - ticks[at]!) / 1e9 / turns;
      })
    );
  } finally {
    staging.destroy();
    resolved.destroy();
    querySet.destroy();
  }
}

async function byClock(gpu: Gpu, tracks: readonly Track[], rounds: number): Promise<number[][]> {
  const times: number[][] = tracks.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, track] of tracks.entries()) {
      const begin = performance.now();
      const encoder = gpu.device.createCommandEncoder();
      encode(encoder, track, {});
      gpu.device.queue.submit([encoder.finish()]);
      await gpu.idle();
      times[i]!.push((performance.now() - begin) / 1000 / track.turns);
    }
  }
  return times;
}

function encode(
  encoder: GPUCommandEncoder,
  { launches, turns }: Track,
  descriptor: GPUComputePassDescriptor,
): void {
  const pass = encoder.beginComputePass(descriptor);
  for (let turn = 0; turn < turns; turn++) {
    for (const { pipeline, group, planned } of launches) {
      pass.setPipeline(pipeline.raw);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(...planned.groups);
    }
  }
  pass.end();
}
