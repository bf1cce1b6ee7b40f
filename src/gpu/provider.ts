/**
 * Where WebGPU comes from. As a rule the runtime has it; another implementation may be given in its place, which shows what is a
 * mistake of ours and what is one of a driver's or a compiler's, and which has features that the runtime's own lacks.
 *
 * A process has one: it belongs to the machine, as drivers do, so it is no part of a recipe. Who starts a process says which, and hands
 * in how its package is loaded; the package of one that nobody asked for is never loaded.
 *
 * @module
 */
import { DeviceError } from "../base/errors.ts";

/** Name of a provider, as `--provider` takes it. */
export type ProviderId = "native" | "dawn";

/** An implementation of WebGPU. */
export interface GpuProvider {
  readonly id: ProviderId;
  /** What it is, in a few words. */
  readonly title: string;
  /** The package that it comes in; absent where the runtime has it. */
  readonly package?: string;
  /** What to do where it finds no adapter. */
  readonly withoutAdapter: string;
  /**
   * Its entry point; undefined where the runtime has none.
   *
   * @param module What the package exports
   */
  open(module: unknown): GPU | undefined;
}

/** What the package of Dawn exports. */
export interface DawnModule {
  create(options: string[]): GPU;
}

/**
 * Every entry point of Dawn that was ever opened. Its adapters and devices do not keep their instance alive: when the object that
 * `create()` gave is collected, the instance goes, and the next call of the device locks a mutex that is no more ("Invalid argument" of
 * std::system_error, a failed assertion of pthreads, a segmentation fault, or an answer that never comes). So none is ever let go.
 */
const dawnEntries: GPU[] = [];

/**
 * Opens Dawn.
 *
 * @param options Such as `backend=null`, for the backend that compiles and allocates but computes nothing
 */
export function openDawn(module: DawnModule, options: readonly string[] = []): GPU {
  const entry = module.create([
    // Experimental features are offered, such as products of matrices by subgroups; a device has only what it asks for.
    "enable-dawn-features=allow_unsafe_apis",
    // Times of kernels in nanoseconds, not in steps of a tenth of a millisecond: there are no pages to be protected from each other.
    "disable-dawn-features=timestamp_quantization",
    ...options,
  ]);
  dawnEntries.push(entry);
  return entry;
}

/** The providers by name. A further one is a row here. */
export const GPU_PROVIDERS: Readonly<Record<ProviderId, GpuProvider>> = {
  native: {
    id: "native",
    title: "the runtime's own WebGPU",
    withoutAdapter:
      "install a Vulkan, Metal or Direct3D 12 driver; on a machine without a GPU Mesa's software driver will do (Debian: apt-get install mesa-vulkan-drivers). `limbeck doctor` tells more",
    open: () => globalThis.navigator?.gpu,
  },
  dawn: {
    id: "dawn",
    title: "Dawn, the WebGPU of Chrome",
    package: "npm:webgpu@0.6.2",
    withoutAdapter:
      "Dawn asks more of a driver than Deno does, and says on standard error what it misses; of Mesa's software driver it wants a newer one than 22.3. A newer driver or `--provider native` will do; docs/providers.md says what has run where",
    open: (module) => openDawn(module as DawnModule),
  },
};

let used: GpuProvider = GPU_PROVIDERS.native;
let load: () => Promise<unknown> = () => Promise.resolve(undefined);
let opened: Promise<GPU | undefined> | undefined;

/**
 * Says where this process has WebGPU from. Must come before its first device.
 *
 * @param loadPackage Imports the provider's package, when the first device is opened
 * @throws {DeviceError} it has opened one of another provider already
 */
export function useProvider(id: ProviderId, loadPackage: () => Promise<unknown>): void {
  if (opened && used.id !== id) {
    throw new DeviceError(
      `this process works with ${used.title} already, not with ${GPU_PROVIDERS[id].title}`,
    );
  }
  [used, load] = [GPU_PROVIDERS[id], loadPackage];
}

/** Where this process has WebGPU from. */
export function processProvider(): GpuProvider {
  return used;
}

/**
 * The entry point to WebGPU of this process; undefined where the runtime has none.
 *
 * @throws {DeviceError} the provider's package cannot be loaded
 */
export function openProvider(): Promise<GPU | undefined> {
  return opened ??= openUsed(used);
}

async function openUsed({ title, package: name, open }: GpuProvider): Promise<GPU | undefined> {
  if (name === undefined) return open(undefined);
  try {
    return open(await load());
  } catch (cause) {
    throw new DeviceError(`${title} (${name}) cannot be loaded: ${(cause as Error).message}`, {
      hint: "It is a library for this kind of machine, fetched once; `--provider native` does without it.",
      cause,
    });
  }
}
