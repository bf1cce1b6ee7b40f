/**
 * Timing a program's steps. Every program of the comparison is measured by this, in a process of its own.
 *
 * @module
 */

/** What a measured program prints. */
export interface Measurement {
  /** Program that was measured. */
  peer: string;
  case: string;
  /** The first step with everything that it compiles, and reading and uploading the model before it. */
  firstStepMs: number;
  /** Each of the steps that follow, from the call to the loss on the host. */
  stepMs: number[];
  /** Loss before training and after one, two and three steps. */
  losses: number[];
  /** Most memory the process ever held, from loading its code to the last step. */
  peakRssBytes: number;
  adapterName: string;
}

/** The largest resident size of this process so far (Linux; 0 elsewhere). */
export function peakRssBytes(): number {
  if (Deno.build.os !== "linux") return 0;
  const kilobytes = Deno.readTextFileSync("/proc/self/status").match(/^VmHWM:\s+(\d+) kB$/m)?.[1];
  return Number(kilobytes ?? 0) * 1024;
}

/** What WebGPU calls the adapter that it gives by default. */
export async function adapterName(): Promise<string> {
  const info = (await navigator.gpu.requestAdapter())?.info;
  return info ? info.description || info.device || info.vendor : "none";
}

/**
 * Runs a program's steps and times them.
 *
 * @param began `performance.now()` before the model was read
 * @param step One whole step, resolving to the loss before its update
 * @param timed Steps to time after the first; at least 3, so that there is a loss after three
 */
export async function measure(
  peer: string,
  caseName: string,
  began: number,
  step: () => Promise<number>,
  timed: number,
): Promise<Measurement> {
  if (!(timed >= 3)) throw new RangeError(`at least 3 timed steps are needed, not ${timed}`);
  const times: number[] = [];
  const losses: number[] = [];
  for (let i = 0; i <= timed; i++) {
    const start = i === 0 ? began : performance.now();
    losses.push(await step());
    times.push(performance.now() - start);
  }
  return {
    peer,
    case: caseName,
    firstStepMs: times[0],
    stepMs: times.slice(1),
    losses: losses.slice(0, 4),
    peakRssBytes: peakRssBytes(),
    adapterName: await adapterName(),
  };
}
