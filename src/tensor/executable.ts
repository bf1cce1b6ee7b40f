/**
 * A plan made real on a device: buffers, pipelines and bind groups, made once; a step then only writes the small inputs,
 * encodes and submits.
 *
 * @module
 */
import { DeviceError } from "../base/errors.ts";
import { FIRST_UNIFORM, inOneGroup } from "../gpu/bindings.ts";
import { BUFFER_USAGE } from "../gpu/buffer_usage.ts";
import type { Gpu, GpuBuffer, Pipeline } from "../gpu/device.ts";
import { type ProfiledLaunch, Profiler } from "../gpu/profiler.ts";
import type { DType } from "./graph.ts";
import { StepScalars } from "./graph.ts";
import type { Plan, PlannedBlock, PlannedDispatch, Range } from "./plan.ts";
import { othersThanFirst } from "./variants.ts";

interface Launch {
  readonly planned: PlannedDispatch;
  readonly pipeline: Pipeline;
  readonly group: GPUBindGroup;
}

/** Options of {@linkcode compile}. */
export interface CompileOptions {
  /** Buffers already filled for some weights, by storage name: two programs, or two models, may share them. */
  readonly weights?: ReadonlyMap<string, GpuBuffer>;
  /** Called before each kernel is compiled. */
  readonly onProgress?: (done: number, total: number) => void;
  /** Measure each kernel. Needs `timestamp-query`; every kernel gets a pass of its own, which costs time. */
  readonly profile?: boolean;
  /** Blocks that not every use of the program runs: compiled when {@linkcode Executable.ready} asks for them. */
  readonly later?: readonly string[];
}

/**
 * Allocates a plan's buffers and compiles its kernels.
 *
 * @throws {DeviceError} if memory does not suffice or a kernel does not compile
 */
export async function compile(gpu: Gpu, plan: Plan, options: CompileOptions = {}): Promise<Executable> {
  const owned: GpuBuffer[] = [];
  try {
    const buffers = await gpu.allocating(
      "the program",
      () => createBuffers(gpu, plan, options.weights, owned),
    );
    gpu.device.queue.writeBuffer(
      buffers[plan.sizeBuffer]!.raw,
      0,
      plan.sizeWords as Uint32Array<ArrayBuffer>,
    );
    const now = [...plan.blocks.values()].filter(({ name }) => !options.later?.includes(name));
    const total = now.reduce((sum, b) => sum + b.dispatches.length, 0);
    const blocks = new Map<string, Launch[]>();
    let done = 0;
    for (const block of now) {
      blocks.set(
        block.name,
        await prepareAll(gpu, plan, buffers, block, () => options.onProgress?.(done++, total)),
      );
    }
    for (const [key, kernel] of Object.entries(othersThanFirst(plan.kernels))) gpu.taken.set(key, kernel);
    return new Executable(gpu, plan, buffers, owned, blocks, options.profile ?? false);
  } catch (error) {
    owned.forEach((b) => b.destroy());
    throw error;
  }
}

/**
 * The buffers of a plan, given weights among them; those that are made are also put into `owned`.
 *
 * The bytes are counted here, before anything is awaited: other programs may be made on this device meanwhile.
 */
function createBuffers(
  gpu: Gpu,
  plan: Plan,
  weights: CompileOptions["weights"],
  owned: GpuBuffer[],
): GpuBuffer[] {
  const before = gpu.allocatedBytes;
  const buffers = plan.buffers.map((b, i) => {
    const given = b.storage && weights?.get(b.storage.name);
    if (given) {
      if (given.size !== b.bytes) {
        throw new DeviceError(
          `weight "${b.label}" was given as ${given.size} bytes, the plan says ${b.bytes}`,
        );
      }
      return given;
    }
    const uniform = i === plan.sizeBuffer || i === plan.stepBuffer;
    const usage = uniform ? BUFFER_USAGE.uniform : BUFFER_USAGE.storage;
    const buffer = gpu.createBuffer(b.bytes, usage, b.label);
    owned.push(buffer);
    return buffer;
  });
  const planned = owned.reduce((sum, b) => sum + b.size, 0);
  const allocated = gpu.allocatedBytes - before;
  if (allocated !== planned) {
    throw new DeviceError(`allocated ${allocated} bytes where the plan says ${planned}; this is a bug`);
  }
  return buffers;
}

async function prepareAll(
  gpu: Gpu,
  plan: Plan,
  buffers: readonly GpuBuffer[],
  block: PlannedBlock,
  onKernel?: () => void,
): Promise<Launch[]> {
  const launches: Launch[] = [];
  for (const dispatch of block.dispatches) {
    onKernel?.();
    launches.push(await prepare(gpu, plan, buffers, dispatch));
  }
  return launches;
}

async function prepare(
  gpu: Gpu,
  plan: Plan,
  buffers: readonly GpuBuffer[],
  d: PlannedDispatch,
): Promise<Launch> {
  const pipeline = await gpu.pipeline(
    d.kernel,
    inOneGroup(d.wgsl),
    gpu.software ? d.writableTogether : d.writable,
  );
  const entries = pipeline.bindings.map(({ binding }): GPUBindGroupEntry => {
    const resource = binding < FIRST_UNIFORM
      ? window(buffers, d.bindings[binding]!)
      : binding === FIRST_UNIFORM
      ? { buffer: buffers[plan.sizeBuffer]!.raw, offset: d.sizeOffset, size: d.sizeBytes }
      : { buffer: buffers[plan.stepBuffer]!.raw };
    return { binding, resource };
  });
  const group = gpu.device.createBindGroup({ layout: pipeline.layouts[0]!, entries });
  return { planned: d, pipeline, group };
}

function window(buffers: readonly GpuBuffer[], range: Range): GPUBufferBinding {
  return { buffer: buffers[range.buffer]!.raw, offset: range.offset, size: range.bytes };
}

/** The bytes of one named output, as they were when its block had run. */
export interface Readback {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array | Uint32Array;
}

/** A compiled program. */
export class Executable {
  readonly plan: Plan;
  readonly gpu: Gpu;
  /** Per-kernel times, when compiled with `profile`. */
  readonly profiler: Profiler | undefined;
  readonly #buffers: readonly GpuBuffer[];
  readonly #owned: readonly GpuBuffer[];
  readonly #blocks: Map<string, Launch[]>;
  /** Of whole blocks, as they were asked for last: the same in every step. */
  readonly #slices = new Map<string, { flops: number; slices: readonly (readonly [number, number])[] }>();
  readonly #step = new ArrayBuffer(StepScalars.capacity * 4);
  readonly #stepFloats = new Float32Array(this.#step);
  readonly #stepWords = new Uint32Array(this.#step);
  #stepChanged = true;

  constructor(
    gpu: Gpu,
    plan: Plan,
    buffers: readonly GpuBuffer[],
    owned: readonly GpuBuffer[],
    blocks: Map<string, Launch[]>,
    profile: boolean,
  ) {
    this.gpu = gpu;
    this.plan = plan;
    this.#buffers = buffers;
    this.#owned = owned;
    this.#blocks = blocks;
    this.profiler = profile ? new Profiler(gpu) : undefined;
  }

  /** Whether any block of the program reads a step scalar of that name. */
  hasScalar(name: string): boolean {
    return this.plan.scalars.indexOf(name) !== undefined;
  }

  /**
   * Sets a float that kernels read as `step[...]`; takes effect at the next {@linkcode run}.
   *
   * @throws {DeviceError} if the program has no scalar of that name
   */
  setScalar(name: string, value: number): void {
    this.#stepFloats[this.#scalarIndex(name)] = value;
    this.#stepChanged = true;
  }

  /** Of numbers of which a program may need only some, sets those that this one has. */
  setScalars(values: Iterable<readonly [name: string, value: number]>): void {
    for (const [name, value] of values) if (this.hasScalar(name)) this.setScalar(name, value);
  }

  /**
   * Sets an integer (a seed, a step number) in the step buffer.
   *
   * @throws {DeviceError} if the program has no scalar of that name
   */
  setScalarWord(name: string, value: number): void {
    this.#stepWords[this.#scalarIndex(name)] = value >>> 0;
    this.#stepChanged = true;
  }

  #scalarIndex(name: string): number {
    const index = this.plan.scalars.indexOf(name);
    if (index === undefined) {
      throw new DeviceError(
        `the program reads no step scalar "${name}", only: ${this.plan.scalars.names().join(", ") || "none"}`,
      );
    }
    return index;
  }

  /** Writes a storage from the host: an input, a weight or a state. `data` must fill it unless `byteOffset` is given. */
  write(name: string, data: Float32Array | Int32Array | Uint32Array | Uint16Array, byteOffset = 0): void {
    const range = this.#range(name);
    if (
      byteOffset + data.byteLength > range.bytes || (byteOffset === 0 && data.byteLength < range.bytes - 15)
    ) {
      throw new DeviceError(
        `"${name}" holds ${range.bytes} bytes; ${data.byteLength} were written at ${byteOffset}`,
      );
    }
    let bytes: Uint8Array = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    if (bytes.byteLength % 4) {
      const padded = new Uint8Array(Math.ceil(bytes.byteLength / 4) * 4);
      padded.set(bytes);
      bytes = padded;
    }
    this.gpu.device.queue.writeBuffer(
      this.#buffers[range.buffer]!.raw,
      range.offset + byteOffset,
      bytes as Uint8Array<ArrayBuffer>,
    );
  }

  /** The GPU buffer of a storage that has one to itself (weights and states), for sharing with another program. */
  buffer(name: string): GpuBuffer {
    return this.#buffers[this.#range(name).buffer]!;
  }

  /** Fills a storage with zeros. */
  clear(name: string): void {
    const range = this.#range(name);
    const encoder = this.gpu.device.createCommandEncoder();
    encoder.clearBuffer(this.#buffers[range.buffer]!.raw, range.offset, range.bytes);
    this.gpu.device.queue.submit([encoder.finish()]);
  }

  /**
   * Compiles a block that was left for later, once; nothing is to be done for the others.
   *
   * @throws {DeviceError} if a kernel does not compile
   */
  async ready(block: string): Promise<void> {
    const planned = this.#planned(block);
    if (this.#blocks.has(block)) return;
    this.#blocks.set(block, await prepareAll(this.gpu, this.plan, this.#buffers, planned));
  }

  /**
   * Encodes and submits one block. Returns as soon as the work is queued.
   *
   * @param without Layers whose dispatches are left out; what follows must not need what they make
   * @throws {DeviceError} if an earlier operation failed
   */
  run(block: string, without?: ReadonlySet<string>): void {
    this.runSlice(block, 0, this.#planned(block).dispatches.length, without);
  }

  /** Cuts a block's dispatches into runs of about so many floating-point operations, for {@linkcode runSlice}. */
  slices(
    block: string,
    flops: number,
    without?: ReadonlySet<string>,
  ): readonly (readonly [number, number])[] {
    const known = without ? undefined : this.#slices.get(block);
    if (known?.flops === flops) return known.slices;
    const slices: [number, number][] = [];
    let from = 0;
    let sum = 0;
    const { dispatches } = this.#planned(block);
    dispatches.forEach((d, i) => {
      if (!isOf(without, d)) sum += d.flops;
      if (sum >= flops || i === dispatches.length - 1) {
        slices.push([from, i + 1]);
        from = i + 1;
        sum = 0;
      }
    });
    if (!without) this.#slices.set(block, { flops, slices });
    return slices;
  }

  /** Encodes and submits dispatches `from <= i < to` of a block: a slice of bounded time. See {@linkcode run} for `without`. */
  runSlice(block: string, from: number, to: number, without?: ReadonlySet<string>): void {
    this.gpu.check();
    this.#writeStep();
    const encoder = this.gpu.device.createCommandEncoder();
    const launches = this.#launches(block);
    if (this.profiler) {
      const part = launches.slice(from, to).filter(({ planned }) => !isOf(without, planned));
      this.profiler.encode(encoder, part);
    } else encodePass(encoder, launches, from, to, without);
    this.gpu.device.queue.submit([encoder.finish()]);
  }

  /** What a block launches, in order: for whoever times it. */
  launches(block: string): readonly ProfiledLaunch[] {
    return this.#launches(block);
  }

  /** Reads named outputs of a block, or storages, back. Waits for all queued work; several at once cost one wait. */
  async read(names: readonly string[], block?: string): Promise<Map<string, Readback>> {
    const results = names.map(async (name): Promise<[string, Readback]> => {
      const output = block === undefined ? undefined : this.#planned(block).outputs.get(name);
      const range = output ?? this.#range(name);
      const bytes = await this.gpu.read(this.#buffers[range.buffer]!, range.offset, range.bytes);
      const data = range.dtype === "f32"
        ? new Float32Array(bytes)
        : range.dtype === "i32"
        ? new Int32Array(bytes)
        : new Uint32Array(bytes);
      return [name, { dtype: range.dtype, shape: range.shape, data }];
    });
    return new Map(await Promise.all(results));
  }

  /** Copies a block's output or a storage into another buffer, queued behind what was submitted: the way to a read-back ring. */
  copy(name: string, block: string | undefined, target: GPUBuffer, targetOffset: number): void {
    const range = (block === undefined ? undefined : this.#planned(block).outputs.get(name)) ??
      this.#range(name);
    const encoder = this.gpu.device.createCommandEncoder();
    encoder.copyBufferToBuffer(
      this.#buffers[range.buffer]!.raw,
      range.offset,
      target,
      targetOffset,
      range.bytes,
    );
    this.gpu.device.queue.submit([encoder.finish()]);
  }

  /** Fills every buffer of intermediates with NaN: what no kernel writes stays visible. Used by tests. */
  poison(): void {
    this.plan.buffers.forEach((b, i) => {
      if (b.category !== "activations") return;
      const nan = new Uint32Array(b.bytes / 4).fill(0x7fc00000);
      this.gpu.device.queue.writeBuffer(this.#buffers[i]!.raw, 0, nan);
    });
  }

  /** Frees every buffer this program allocated; shared weights stay. */
  destroy(): void {
    this.#owned.forEach((b) => b.destroy());
    this.profiler?.destroy();
  }

  #writeStep(): void {
    if (!this.#stepChanged) return;
    this.gpu.device.queue.writeBuffer(this.#buffers[this.plan.stepBuffer]!.raw, 0, this.#step);
    this.#stepChanged = false;
  }

  #range(name: string) {
    const range = this.plan.storages.get(name);
    if (!range) throw new DeviceError(`the program has no storage "${name}"`);
    return range;
  }

  #planned(block: string): PlannedBlock {
    const planned = this.plan.blocks.get(block);
    if (!planned) throw new DeviceError(`the program has no block "${block}"`);
    return planned;
  }

  #launches(block: string): readonly Launch[] {
    const launches = this.#blocks.get(block);
    if (launches) return launches;
    throw new DeviceError(
      `the block "${this.#planned(block).name}" was left for later, and nobody has made it ready`,
    );
  }
}

/** Whether a dispatch belongs to one of some layers. */
function isOf(layers: ReadonlySet<string> | undefined, { layer }: PlannedDispatch): boolean {
  return layers !== undefined && layer !== undefined && layers.has(layer);
}

/** Host time of a step is spent here: nothing is made anew, and nothing is set twice. */
function encodePass(
  encoder: GPUCommandEncoder,
  launches: readonly Launch[],
  from: number,
  to: number,
  without: ReadonlySet<string> | undefined,
): void {
  const pass = encoder.beginComputePass();
  let pipeline: Pipeline | undefined;
  for (let i = from; i < to; i++) {
    const launch = launches[i]!;
    const { planned } = launch;
    if (isOf(without, planned)) continue;
    if (launch.pipeline !== pipeline) pass.setPipeline((pipeline = launch.pipeline).raw);
    pass.setBindGroup(0, launch.group);
    const [x, y, z] = planned.groups;
    pass.dispatchWorkgroups(x, y, z);
  }
  pass.end();
}
