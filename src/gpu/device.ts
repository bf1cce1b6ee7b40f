/**
 * Opening a GPU: the adapter with its own limits and every useful feature it grants, errors that do not stay silent, a count of
 * every byte allocated, and a cache of compiled pipelines.
 *
 * WebGPU reports a failing kernel to nobody by default: the dispatch is dropped and yesterday's numbers stay in the buffer.
 * {@linkcode Gpu} therefore collects every uncaptured error and the loss of the device, and {@linkcode Gpu.check} throws them.
 *
 * @module
 */
import { DeviceError } from "../base/errors.ts";
import { type DeviceDescription, SUBGROUP_MATRIX, type SubgroupMatrix } from "./description.ts";
import { accessVariant, type Binding, parseBindings } from "./bindings.ts";
import { findPreamble } from "./preamble.ts";
import { GPU_PROVIDERS, openProvider, processProvider, type ProviderId } from "./provider.ts";
import { ReadBack } from "./read_back.ts";

/** WebGPU's `GPUShaderStage.COMPUTE`: other implementations than the runtime's come without the globals that name such numbers. */
const COMPUTE_STAGE = 0x4;

/** Bytes that may be on their way to the device; see {@linkcode Gpu.upload}. */
const STAGED_BYTES = 128 * 2 ** 20;

/** Options of {@linkcode openGpu}. */
export interface GpuOptions {
  /** The WebGPU entry point; that of this process by default, see {@linkcode processProvider}. */
  readonly gpu?: GPU;
  readonly powerPreference?: GPUPowerPreference;
  /** Overrides what planning believes of the adapter: tests use it to run the kernels of another family. */
  readonly describe?: Partial<DeviceDescription>;
  /** WGSL written before every kernel; what the device's compiler wants when absent, see {@linkcode findPreamble}. */
  readonly preamble?: string;
}

const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxUniformBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupSizeZ",
  "maxComputeWorkgroupsPerDimension",
] as const;

/** Features worth having. `subgroups` is granted by some implementations that do not list it, so each is tried, not looked up. */
const FEATURES = ["subgroups", "timestamp-query", "shader-f16"] as const;

/** Features that some implementations do not know, and that are asked for only where they are listed. */
const LISTED_FEATURES = [SUBGROUP_MATRIX] as const;

/**
 * Opens the adapter and a device with the adapter's own limits.
 *
 * @throws {DeviceError} if there is no WebGPU, no adapter, or the device cannot be made
 * @example
 * ```ts ignore
 * const gpu = await openGpu();
 * console.log(gpu.description.name);
 * gpu.destroy();
 * ```
 */
export async function openGpu(options: GpuOptions = {}): Promise<Gpu> {
  const provider = options.gpu ? undefined : processProvider();
  const entry = options.gpu ?? await openProvider();
  if (!entry) {
    throw new DeviceError("this runtime offers no WebGPU", {
      hint: "use Deno 2.9 or newer, or a browser with WebGPU",
    });
  }
  const adapter = await entry.requestAdapter({
    powerPreference: options.powerPreference ?? "high-performance",
  });
  if (!adapter) {
    throw new DeviceError("no GPU adapter found", {
      hint: (provider ?? GPU_PROVIDERS.native).withoutAdapter,
    });
  }
  const requiredLimits: Record<string, number> = {};
  for (const name of LIMITS) {
    const value = adapter.limits[name];
    if (typeof value === "number") requiredLimits[name] = value;
  }
  const listed = LISTED_FEATURES.filter((name) => adapter.features.has(name as GPUFeatureName));
  let features: string[] = [...FEATURES, ...listed];
  for (;;) {
    try {
      const device = await adapter.requestDevice({
        requiredFeatures: features as GPUFeatureName[],
        requiredLimits,
      });
      const preamble = options.preamble ?? await findPreamble(device, new Set(features));
      return new Gpu(adapter, device, features, {
        ...{ ...options, gpu: entry, preamble },
        ...(provider ? { provider: provider.id } : {}),
      });
    } catch (cause) {
      if (features.length === 0) {
        throw new DeviceError(`the adapter gives no device: ${(cause as Error).message}`, { cause });
      }
      // An adapter is used up by a failed request on some implementations only; drop the features one by one.
      const listed = features.filter((f) => adapter.features.has(f as GPUFeatureName));
      features = listed.length < features.length ? listed : features.slice(0, -1);
    }
  }
}

/** A buffer with an owner. Nothing frees it but {@linkcode destroy}: dropped WebGPU buffers live until a chance garbage collection. */
export class GpuBuffer {
  readonly raw: GPUBuffer;
  readonly size: number;
  readonly label: string;
  #gpu: Gpu;
  #alive = true;

  constructor(gpu: Gpu, raw: GPUBuffer, label: string) {
    this.#gpu = gpu;
    this.raw = raw;
    this.size = raw.size;
    this.label = label;
  }

  /** Whether it has not been freed. */
  get isAlive(): boolean {
    return this.#alive;
  }

  /** Frees the memory now. Calling it twice is harmless. */
  destroy(): void {
    if (!this.#alive) return;
    this.#alive = false;
    this.raw.destroy();
    this.#gpu.released(this.size);
  }
}

/** A compiled kernel with the bindings its source declares. */
export interface Pipeline {
  readonly label: string;
  readonly raw: GPUComputePipeline;
  readonly bindings: readonly Binding[];
  readonly layouts: readonly GPUBindGroupLayout[];
}

/** An open device. The only object through which the rest of the project touches WebGPU. */
export class Gpu {
  readonly entry: GPU | undefined;
  /** Where WebGPU comes from; undefined where an entry point was handed in. */
  readonly provider: ProviderId | undefined;
  readonly adapter: GPUAdapter;
  readonly device: GPUDevice;
  readonly features: ReadonlySet<string>;
  readonly preamble: string;
  /** Whether a CPU does the work. */
  readonly software: boolean;
  /** Kernels of the programs that were compiled here which are others than stand first, by what they are for. */
  readonly taken: Map<string, string> = new Map();
  #description: DeviceDescription;
  #allocated = 0;
  #peak = 0;
  #failure: DeviceError | undefined;
  #pipelines = new Map<string, Pipeline>();
  #staged = 0;
  #destroyed = false;

  constructor(
    adapter: GPUAdapter,
    device: GPUDevice,
    features: readonly string[],
    options: GpuOptions & { readonly provider?: ProviderId },
  ) {
    this.entry = options.gpu;
    this.provider = options.provider;
    this.adapter = adapter;
    this.device = device;
    this.features = new Set(features);
    this.preamble = options.preamble ?? "";
    this.software = isSoftware(adapter.info);
    this.#description = { ...describe(adapter, device, this.features), ...options.describe };
    device.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      const { error } = event as GPUUncapturedErrorEvent;
      this.fail(new DeviceError(`the GPU refused an operation: ${error.message}`));
    });
    device.lost.then((info) => {
      if (this.#destroyed) return;
      this.fail(
        new DeviceError(`the GPU device was lost (${info.reason}): ${info.message}`, {
          hint:
            "run `limbeck resume` to continue from the last checkpoint; if it happens again, lower tokensPerMicroBatch",
        }),
      );
    });
  }

  /** The device as plans see it. */
  get description(): DeviceDescription {
    return this.#description;
  }

  /** Has plans that are made from now on take these kernels, where they can: see `DeviceDescription.kernels`. */
  prefer(kernels: DeviceDescription["kernels"]): void {
    const { kernels: _, ...description } = this.#description;
    this.#description = kernels ? { ...description, kernels } : description;
  }

  /** Bytes of buffers alive now. */
  get allocatedBytes(): number {
    return this.#allocated;
  }

  /** The most bytes of buffers alive at once so far. */
  get peakBytes(): number {
    return this.#peak;
  }

  /** Lets {@linkcode peakBytes} begin anew, for a device that several pieces of work use one after another. */
  forgetPeak(): void {
    this.#peak = this.#allocated;
  }

  /** Records a failure; the first one is what {@linkcode check} throws. */
  fail(error: DeviceError): void {
    this.#failure ??= error;
  }

  /** @throws {DeviceError} if any GPU operation failed since the device was opened */
  check(): void {
    if (this.#failure) throw this.#failure;
  }

  /**
   * Allocates a buffer, filled with zeros.
   *
   * @param size Bytes; rounded up to a multiple of 4
   * @param usage Of {@linkcode BUFFER_USAGE}
   * @throws {DeviceError} if it is larger than the adapter allows
   */
  createBuffer(size: number, usage: number, label: string): GpuBuffer {
    const bytes = Math.max(4, Math.ceil(size / 4) * 4);
    if (bytes > this.description.maxBufferSize) {
      throw new DeviceError(
        `buffer "${label}" needs ${bytes} bytes, this adapter allows ${this.description.maxBufferSize} in one buffer`,
      );
    }
    const raw = this.device.createBuffer({ size: bytes, usage, label });
    this.#allocated += bytes;
    this.#peak = Math.max(this.#peak, this.#allocated);
    return new GpuBuffer(this, raw, label);
  }

  /** Called by {@linkcode GpuBuffer.destroy}. */
  released(bytes: number): void {
    this.#allocated -= bytes;
  }

  /**
   * Runs `allocate` and waits until the device has confirmed every allocation in it.
   *
   * @throws {DeviceError} "out of memory" with the label of what was being allocated
   */
  async allocating<T>(what: string, allocate: () => T): Promise<T> {
    this.device.pushErrorScope("out-of-memory");
    this.device.pushErrorScope("validation");
    const outcome = attempt(allocate);
    // Both are taken off before anything is awaited: scopes are a stack that all who use the device share.
    const scopes = [this.device.popErrorScope(), this.device.popErrorScope()];
    const [invalid, memory] = await Promise.all(scopes);
    if (memory) {
      throw new DeviceError(`out of GPU memory while allocating ${what}: ${memory.message}`, {
        hint:
          "lower tokensPerMicroBatch or headChunk, turn activationCheckpointing on, or let a teacher's layers come from disk " +
          "(teacher.stream: true); `limbeck estimate` shows the bytes",
      });
    }
    if (invalid) throw new DeviceError(`cannot allocate ${what}: ${invalid.message}`);
    if ("error" in outcome) throw outcome.error;
    return outcome.value;
  }

  /**
   * Does work of which it is not known whether the device can: what it refuses is told here, and does not count against later work. Nobody
   * else may use the device meanwhile.
   *
   * @throws {DeviceError} what the device refused
   */
  async apart<T>(what: string, work: () => Promise<T>): Promise<T> {
    const kinds = ["validation", "out-of-memory", "internal"] as const;
    kinds.forEach((kind) => this.device.pushErrorScope(kind));
    const outcome = await work().then((value) => ({ value }), (error: unknown) => ({ error }));
    const scopes = kinds.map(() => this.device.popErrorScope());
    const refused = (await Promise.all(scopes)).find((error) => error !== null);
    if ("error" in outcome) throw outcome.error;
    if (refused) throw new DeviceError(`the GPU refused ${what}: ${refused.message}`);
    return outcome.value;
  }

  /**
   * The compiled pipeline of a kernel; compiled once per text.
   *
   * @param writable Bindings (by index in group 0) whose declared `read` access must become `read_write`, because another
   *   binding of the same dispatch writes to the same buffer
   * @throws {DeviceError} with the compiler's messages and the offending lines if the kernel does not compile
   */
  async pipeline(label: string, wgsl: string, writable: ReadonlySet<number> = new Set()): Promise<Pipeline> {
    const source = this.preamble + accessVariant(wgsl, writable);
    const key = source;
    const cached = this.#pipelines.get(key);
    if (cached) return cached;
    this.device.pushErrorScope("validation");
    const module = this.device.createShaderModule({ code: source, label });
    const bindings = parseBindings(source);
    const groupCount = 1 + Math.max(-1, ...bindings.map((b) => b.group));
    const layouts = Array.from({ length: groupCount }, (_, group) =>
      this.device.createBindGroupLayout({
        entries: bindings.filter((b) => b.group === group).map((b) => ({
          binding: b.binding,
          visibility: COMPUTE_STAGE,
          buffer: {
            type: b.kind === "uniform" ? "uniform" : b.kind === "read" ? "read-only-storage" : "storage",
          },
        })),
      }));
    const raw = this.device.createComputePipeline({
      label,
      layout: this.device.createPipelineLayout({ bindGroupLayouts: layouts }),
      compute: { module, entryPoint: "main" },
    });
    const error = await this.device.popErrorScope();
    if (error) {
      const info = await module.getCompilationInfo();
      const lines = source.split("\n");
      const details = info.messages.map((m) =>
        `line ${m.lineNum}: ${m.message}\n    ${lines[m.lineNum - 1] ?? ""}`
      );
      throw new DeviceError(`kernel "${label}" does not compile: ${details.join("\n") || error.message}`);
    }
    const pipeline = { label, raw, bindings, layouts };
    this.#pipelines.set(key, pipeline);
    return pipeline;
  }

  /** How many distinct pipelines were compiled so far. */
  get pipelineCount(): number {
    return this.#pipelines.size;
  }

  /**
   * Writes bytes into a buffer, behind all work that is queued. They stay staged in host memory until the device has come so far: so that this
   * never grows beyond {@linkcode STAGED_BYTES} or one call's bytes, the device is waited for now and then. Nothing is written into a buffer
   * that has been freed meanwhile.
   *
   * @param bytes Whole words
   * @throws {DeviceError} if an earlier operation failed
   */
  async upload(buffer: GpuBuffer, offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    if (this.#staged > 0 && this.#staged + bytes.byteLength > STAGED_BYTES) {
      this.#staged = 0;
      await this.idle();
    }
    if (!buffer.isAlive) return;
    this.device.queue.writeBuffer(buffer.raw, offset, bytes);
    this.#staged += bytes.byteLength;
    this.device.queue.submit([]);
  }

  /** Waits until all submitted work is done. Costs at least 10 ms and blocks the event loop: never inside a step. */
  async idle(): Promise<void> {
    await this.device.queue.onSubmittedWorkDone();
    this.check();
  }

  /** Reads a range of a buffer back. Blocks like {@linkcode idle}; meant for tests, checkpoints and exports. */
  async read(buffer: GpuBuffer, offset: number, size: number): Promise<ArrayBuffer> {
    const bytes = Math.ceil(size / 4) * 4;
    const staging = new ReadBack(this.device, bytes, "read back");
    try {
      const encoder = this.device.createCommandEncoder();
      encoder.copyBufferToBuffer(buffer.raw, offset, staging.raw, 0, bytes);
      this.device.queue.submit([encoder.finish()]);
      const data = await staging.take(bytes);
      this.check();
      return data.slice(0, size);
    } finally {
      staging.destroy();
    }
  }

  /** Destroys the device. Buffers and pipelines are gone with it. */
  destroy(): void {
    this.#destroyed = true;
    this.device.destroy();
  }
}

function attempt<T>(run: () => T): { value: T } | { error: unknown } {
  try {
    return { value: run() };
  } catch (error) {
    return { error };
  }
}

/** Whether a CPU does the work. */
function isSoftware(info: GPUAdapterInfo): boolean {
  return info.isFallbackAdapter || /llvmpipe|lavapipe|swiftshader/i.test(info.description);
}

function describe(adapter: GPUAdapter, device: GPUDevice, features: ReadonlySet<string>): DeviceDescription {
  const { limits } = device;
  const info = adapter.info;
  const fixed = features.has("subgroups") && info.subgroupMinSize === info.subgroupMaxSize;
  const subgroupSize = fixed ? info.subgroupMinSize : 0;
  return {
    name: info.description || [info.vendor, info.architecture, info.device].filter(Boolean).join(" ") ||
      "unnamed adapter",
    family: isSoftware(info) && subgroupSize === 8 ? "subgroup8" : "tiled",
    subgroupSize,
    // wgpu reports up to 4 GiB - 1 but refuses what does not fit a signed 32-bit number.
    maxBufferSize: Math.min(limits.maxBufferSize, 2 ** 31 - 4),
    maxBindingSize: Math.min(limits.maxStorageBufferBindingSize, 2 ** 31 - 4),
    maxStorageBuffers: limits.maxStorageBuffersPerShaderStage,
    maxWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
    maxWorkgroupMemory: limits.maxComputeWorkgroupStorageSize,
    maxInvocations: limits.maxComputeInvocationsPerWorkgroup,
    shaderF16: features.has("shader-f16"),
    // 256 suits every adapter and lets one plan serve all.
    offsetAlignment: 256,
    ...(isSoftware(info) ? { software: true } : {}),
    ...(features.has(SUBGROUP_MATRIX) ? { subgroupMatrices: subgroupMatrices(info) } : {}),
  };
}

/** What an adapter says of the matrices that its subgroups multiply. */
function subgroupMatrices(info: GPUAdapterInfo): SubgroupMatrix[] {
  const { subgroupMatrixConfigs = [] } = info as {
    subgroupMatrixConfigs?: readonly (SubgroupMatrix & Record<"M" | "N" | "K", number>)[];
  };
  return subgroupMatrixConfigs.map((config) => ({
    ...{ m: config.M, n: config.N, k: config.K },
    ...{ componentType: config.componentType, resultComponentType: config.resultComponentType },
  }));
}
