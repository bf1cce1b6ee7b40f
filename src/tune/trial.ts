/**
 * One kernel of several, made to run alone on numbers of no meaning.
 *
 * @module
 */
import { ShapeError } from "../base/errors.ts";
import type { DeviceDescription } from "../gpu/description.ts";
import type { Gpu, GpuBuffer } from "../gpu/device.ts";
import type { Track } from "../gpu/stopwatch.ts";
import { compile, type Executable } from "../tensor/executable.ts";
import type { TrialInputs } from "../tensor/graph.ts";
import { type Plan, plan, Program } from "../tensor/plan.ts";
import type { ChosenKernel } from "../tensor/variants.ts";
import type { TrialData } from "./trial_data.ts";

const BLOCK = "trial";

/** What kernels of a choice gave: of each output, the numbers. */
export type TrialOutputs = readonly (Float32Array | Int32Array | Uint32Array)[];

/** One kernel of a choice, planned alone. */
export interface PlannedTrial {
  readonly kernel: string;
  readonly plan: Plan;
  /** What some of its inputs hold. */
  readonly inputs: TrialInputs;
}

/**
 * Plans one kernel of a choice alone.
 *
 * @throws {ShapeError} if the trial does not ask for that choice, or the kernel cannot run on this device
 */
export function planTrial(choice: ChosenKernel, kernel: string, device: DeviceDescription): PlannedTrial {
  const program = new Program();
  const inputs = choice.trial(program.block(BLOCK));
  const planned = plan(program, { ...device, kernels: { ...device.kernels, [choice.key]: kernel } });
  if (planned.kernels.get(choice.key)?.chosen === kernel) return { kernel, plan: planned, inputs };
  throw new ShapeError(`the trial of "${choice.key}" does not run its kernel ${kernel}; this is a bug`);
}

/** The texts that a kernel of a choice consists of, in order. */
export function textsOf({ plan }: PlannedTrial): string[] {
  return plan.blocks.get(BLOCK)!.dispatches.map(({ wgsl }) => wgsl);
}

/** Floating-point operations of one run, and bytes that it must move at least. */
export function workOf({ plan }: PlannedTrial): { flops: number; bytes: number } {
  const { dispatches, outputs } = plan.blocks.get(BLOCK)!;
  const storages = [...plan.storages.values()].filter(({ name }) => name !== "nothing");
  const all = [...storages, ...outputs.values()];
  return {
    flops: dispatches.reduce((sum, { flops }) => sum + flops, 0),
    bytes: all.reduce((sum, { bytes }) => sum + bytes, 0),
  };
}

/** A kernel that is ready to be timed. */
export class Trial {
  readonly kernel: string;
  readonly #executable: Executable;

  private constructor(kernel: string, executable: Executable) {
    this.kernel = kernel;
    this.#executable = executable;
  }

  /**
   * Compiles a planned trial and fills what it reads.
   *
   * @param weights Of {@linkcode TrialData.weights}
   * @throws {DeviceError} if it does not compile or memory does not suffice
   */
  static async open(
    gpu: Gpu,
    { kernel, plan, inputs }: PlannedTrial,
    weights: ReadonlyMap<string, GpuBuffer>,
    data: TrialData,
  ): Promise<Trial> {
    const executable = await compile(gpu, plan, { weights });
    data.fill(executable, inputs);
    return new Trial(kernel, executable);
  }

  /** Runs it once, on memory that holds nothing of an earlier run. */
  async outputs(): Promise<TrialOutputs> {
    this.#executable.run(BLOCK);
    const names = [...this.#executable.plan.blocks.get(BLOCK)!.outputs.keys()];
    const read = await this.#executable.read(names, BLOCK);
    return names.map((name) => read.get(name)!.data);
  }

  track(turns: number): Track {
    return { launches: this.#executable.launches(BLOCK), turns };
  }

  destroy(): void {
    this.#executable.destroy();
  }
}

/**
 * How far outputs are from others: the largest difference over the root of the mean square. Infinite where some are not finite, or
 * integers differ; NaN where there is nothing to compare with.
 */
export function distance(of: TrialOutputs, from: TrialOutputs): number {
  let worst = from.length === 0 ? NaN : 0;
  from.forEach((wanted, o) => {
    const found = of[o]!;
    if (!(wanted instanceof Float32Array)) {
      if (wanted.some((value, i) => value !== found[i])) worst = Infinity;
      return;
    }
    let [largest, square] = [0, 0];
    for (let i = 0; i < wanted.length; i++) {
      const off = Math.abs(found[i]! - wanted[i]!);
      largest = off <= largest ? largest : Number.isNaN(off) ? Infinity : off;
      square += wanted[i]! ** 2;
    }
    const size = Math.sqrt(square / wanted.length);
    if (!Number.isFinite(size) || size === 0) worst = NaN;
    else worst = Math.max(worst, largest / size);
  });
  return worst;
}
