/**
 * Devices for work that times nothing itself: they compute with the kernels that they have chosen before.
 *
 * @module
 */
import type { DeviceDescription } from "../gpu/description.ts";
import { type Gpu, openGpu } from "../gpu/device.ts";
import type { Plan } from "../tensor/plan.ts";
import { choicesOf, deviceIdentity, kernelsOf, knownChoices, type TunedDevice } from "./tuned.ts";

/** Makes plans for a device, one that a CPU plays or not, as they will be made again. Pure. */
export type PlansFor = (device: DeviceDescription, software: boolean) => Iterable<Plan>;

/** Opens devices that compute with the kernels that they have chosen before, and can tell which these were. */
export class TunedDevices {
  readonly #kept: readonly TunedDevice[];
  readonly #opened: Gpu[] = [];

  /** @param kept What was measured on devices; without it, kernels are those that stand first */
  constructor(kept: readonly TunedDevice[] = []) {
    this.#kept = kept;
  }

  /**
   * Opens the device.
   *
   * @param plans as {@linkcode TunedDevices.settle} takes it
   * @throws {DeviceError} there is none
   */
  async open(plans: PlansFor): Promise<Gpu> {
    const gpu = await openGpu();
    this.#opened.push(gpu);
    await this.settle(gpu, plans);
    return gpu;
  }

  /**
   * Has a device that was opened here compute some plans with the kernels that it has chosen for them before. What was chosen among kernels
   * whose texts are others by now is not taken.
   *
   * @param plans Not asked where nothing was chosen
   */
  async settle(gpu: Gpu, plans: PlansFor): Promise<void> {
    const kept = choicesOf(this.#kept, deviceIdentity(gpu)).filter(({ kernel, first }) => kernel !== first);
    if (kept.length === 0) return;
    gpu.prefer(kernelsOf(kept));
    const keys = new Set(kept.map(({ key }) => key));
    const choices = [...plans(gpu.description, gpu.adapter.info.isFallbackAdapter)]
      .flatMap(({ kernels }) => [...kernels.values()])
      .filter(({ key }) => keys.has(key));
    const { known } = await knownChoices(gpu, choices, kept);
    gpu.prefer(kernelsOf(known));
  }

  /** Kernels of the programs so far that are others than stand first, by what they are for. */
  get taken(): Record<string, string> {
    return Object.fromEntries(this.#opened.flatMap(({ taken }) => [...taken]));
  }
}

/** What was taken, in words; undefined where all kernels are those that stand first. */
export function takenText(taken: Readonly<Record<string, string>>): string | undefined {
  const kernels = Object.entries(taken).map(([key, kernel]) => `${kernel} for ${key}`);
  return kernels.length === 0 ? undefined : `kernels that this device chose before: ${kernels.join("; ")}`;
}
