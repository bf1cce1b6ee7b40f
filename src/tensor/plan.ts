/**
 * From traced blocks to a plan: kernels for every node, offsets for every intermediate, sizes of every buffer. Pure: it takes
 * a description of a device, so `estimate` works where there is no GPU.
 *
 * @module
 */
import { joinBindings, parseBindings } from "../gpu/bindings.ts";
import type { DeviceDescription } from "../gpu/description.ts";
import { DeviceError, ShapeError } from "../base/errors.ts";
import {
  byteLength,
  type Compute,
  type DType,
  Graph,
  type Node,
  show,
  StepScalars,
  type Storage,
  StorageSet,
  Tensor,
} from "./graph.ts";
import { align, type Demand, pack } from "./memory.ts";
import { type Dispatch, isView, rootOf, type SizeWord, type Window } from "./op.ts";
import { optimise } from "./optimise.ts";
import { type ChosenKernel, KernelChooser } from "./variants.ts";

/** A range of one of the plan's buffers. */
export interface Range {
  readonly buffer: number;
  readonly offset: number;
  readonly bytes: number;
}

/** A kernel launch with everything fixed but the GPU objects. */
export interface PlannedDispatch {
  readonly kernel: string;
  readonly path: string;
  /** The layer that it belongs to, if any: what a block can be run without. */
  readonly layer: string | undefined;
  readonly wgsl: string;
  readonly bindings: readonly Range[];
  /** Bindings declared `read` that must be `read_write`; see `accessVariant`. */
  readonly writable: ReadonlySet<number>;
  /**
   * Bindings that a software device declares `read_write`: those that must be, and all of buffers with floats only, of which no two overlap.
   * Which of them share a buffer with what is written differs from use to use, and each set would be a text of its own to compile, which
   * takes such a device longer than to run most kernels, while it reads memory one way. Not those of integers: to Tint, what is read from a
   * writable binding differs from thread to thread, and integers say how far threads go together.
   */
  readonly writableTogether: ReadonlySet<number>;
  /** Byte offset of its size words in the uniform buffer. */
  readonly sizeOffset: number;
  readonly groups: readonly [number, number, number];
  readonly flops: number;
  /** Bytes of all bindings: an upper bound of what it moves from and to memory once. */
  readonly bytes: number;
  /** Bytes that its tiling moves between memory and the kernel: those of all bindings where the op says no other number. */
  readonly traffic: number;
}

/** One block, planned. */
export interface PlannedBlock {
  readonly name: string;
  readonly dispatches: readonly PlannedDispatch[];
  readonly outputs: ReadonlyMap<string, Range & { readonly shape: readonly number[]; readonly dtype: DType }>;
  /** The most bytes of intermediates alive at once. */
  readonly liveBytes: number;
}

/** A buffer to be allocated. */
export interface PlannedBuffer {
  readonly label: string;
  readonly category: string;
  readonly bytes: number;
  readonly storage: Storage | undefined;
}

/** A program ready to be compiled for a device. */
export interface Plan {
  readonly device: DeviceDescription;
  readonly blocks: ReadonlyMap<string, PlannedBlock>;
  readonly buffers: readonly PlannedBuffer[];
  /** Where each storage lies. */
  readonly storages: ReadonlyMap<string, Range & Storage>;
  readonly scalars: StepScalars;
  /** The words of all size structs. */
  readonly sizeWords: Uint32Array;
  readonly sizeBuffer: number;
  readonly stepBuffer: number;
  /** Exact bytes that compiling allocates, by category; the sum of `buffers`. */
  readonly bytesByCategory: ReadonlyMap<string, number>;
  readonly totalBytes: number;
  /** Of kernels that there are several of, those that were chosen, by what they are for. */
  readonly kernels: ReadonlyMap<string, ChosenKernel>;
}

/** A program under construction: blocks that share storages and step scalars. */
export class Program {
  readonly storages = new StorageSet();
  readonly scalars = new StepScalars();
  readonly blocks: Graph[] = [];
  /** Of blocks that begin from now on; see {@linkcode Graph.compute}. */
  compute?: Compute | undefined;

  /**
   * Begins a block; what is traced into the graph that comes back belongs to it.
   *
   * @throws {ShapeError} if there is a block of that name
   */
  block(name: string): Graph {
    if (this.blocks.some((b) => b.name === name)) throw new ShapeError(`two blocks are named "${name}"`);
    const graph = new Graph(name, this.storages, this.scalars);
    graph.compute = this.compute;
    this.blocks.push(graph);
    return graph;
  }
}

type Lowered = { node: Node; dispatches: Dispatch[]; scratch: Tensor[] };

/**
 * Plans a program for a device.
 *
 * @throws {DeviceError} if a tensor does not fit a binding or a buffer of this device
 */
export function plan(program: Program, device: DeviceDescription): Plan {
  const buffers: PlannedBuffer[] = [];
  const storages = new Map<string, Range & Storage>();
  const chooser = new KernelChooser(device);
  const lowered = program.blocks.map((graph) => ({ graph, nodes: lower(graph, device, chooser) }));
  placeStorages(program, buffers, storages, device);

  const packed = lowered.map(({ graph, nodes }) => placeIntermediates(graph, nodes, device));
  const arenaCount = Math.max(0, ...packed.map((p) => p.arenaBytes.length));
  const firstArena = buffers.length;
  for (let a = 0; a < arenaCount; a++) {
    const bytes = Math.max(...packed.map((p) => p.arenaBytes[a] ?? 0));
    buffers.push({ label: `intermediates ${a}`, category: "activations", bytes, storage: undefined });
  }

  const sizes = new SizeWords();
  const blocks = new Map<string, PlannedBlock>();
  lowered.forEach(({ graph, nodes }, b) => {
    const { rangeOf, live } = packed[b]!;
    const range = (t: Tensor | Window): Range => {
      const [tensor, byteOffset, bytes] = "byteOffset" in t
        ? [t.tensor, t.byteOffset, t.byteLength]
        : [t, 0, byteLength(t)];
      const root = rangeOf(tensor);
      const base = root.storage
        ? storages.get(root.storage.name)!
        : { buffer: firstArena + root.arena, offset: root.offset };
      return { buffer: base.buffer, offset: base.offset + root.byteOffset + byteOffset, bytes };
    };
    const dispatches = nodes.flatMap(({ node, dispatches }) =>
      dispatches.map((d) => planDispatch(d, node, range, sizes, device))
    );
    const outputs = new Map(
      [...graph.outputs].map(([name, t]) => [name, { ...range(t), shape: t.shape, dtype: t.dtype }]),
    );
    blocks.set(graph.name, { name: graph.name, dispatches, outputs, liveBytes: live });
  });

  const sizeWords = sizes.words();
  const sizeBuffer = buffers.push({
    label: "kernel sizes",
    category: "program",
    bytes: Math.max(256, sizeWords.byteLength),
    storage: undefined,
  }) - 1;
  const stepBuffer = buffers.push({
    label: "step scalars",
    category: "program",
    bytes: StepScalars.capacity * 4,
    storage: undefined,
  }) - 1;

  const bytesByCategory = new Map<string, number>();
  for (const { category, bytes } of buffers) {
    bytesByCategory.set(category, (bytesByCategory.get(category) ?? 0) + bytes);
  }
  const totalBytes = buffers.reduce((sum, b) => sum + b.bytes, 0);
  return {
    device,
    blocks,
    buffers,
    storages,
    scalars: program.scalars,
    sizeWords,
    sizeBuffer,
    stepBuffer,
    bytesByCategory,
    totalBytes,
    kernels: chooser.chosen,
  };
}

/** Kernels of every node that somebody needs. */
function lower(graph: Graph, device: DeviceDescription, chooser: KernelChooser): Lowered[] {
  return optimise(graph).map((node) => {
    const dispatches: Dispatch[] = [];
    const scratch: Tensor[] = [];
    let traffic: number | undefined;
    if (!isView(node)) {
      node.op.lower({
        inputs: node.inputs,
        outputs: node.outputs,
        attributes: node.attributes,
        device,
        choose(variants, shape) {
          const variant = chooser.choose(variants, shape);
          traffic = (traffic ?? 0) + variants.traffic(shape, variant);
          return variant;
        },
        scratch(shape, dtype) {
          const tensor = new Tensor(graph, -1 - scratch.length, { shape, dtype }, node, undefined);
          scratch.push(tensor);
          return tensor;
        },
        dispatch: (d) => void dispatches.push(d),
      });
    }
    return { node, dispatches: shareTraffic(dispatches, traffic), scratch };
  });
}

/**
 * What a chosen kernel moves, shared by its launches by their arithmetic, where the op itself has said nothing. What else computes, as the sum of
 * parts does, moves each of its operands once.
 */
function shareTraffic(dispatches: Dispatch[], traffic: number | undefined): Dispatch[] {
  if (traffic === undefined || dispatches.length === 0) return dispatches;
  if (dispatches.some((d) => d.traffic !== undefined)) return dispatches;
  const flopsOf = (d: Dispatch) => d.flops ?? 0;
  const bytesOf = (d: Dispatch) =>
    d.tensors.reduce((sum, t) => sum + ("byteOffset" in t ? t.byteLength : byteLength(t)), 0);
  const { kernel } = dispatches.reduce((a, b) => flopsOf(b) > flopsOf(a) ? b : a);
  const launches = dispatches.filter((d) => d.kernel === kernel);
  const beside = dispatches.filter((d) => d.kernel !== kernel && flopsOf(d) > 0);
  const flops = launches.reduce((sum, d) => sum + flopsOf(d), 0);
  if (flops === 0) return dispatches;
  const rest = traffic - beside.reduce((sum, d) => sum + bytesOf(d), 0);
  return dispatches.map((d) => d.kernel === kernel ? { ...d, traffic: rest * flopsOf(d) / flops } : d);
}

/** Weights and states get a buffer each; the inputs share one, so that one write fills them all. */
function placeStorages(
  program: Program,
  buffers: PlannedBuffer[],
  storages: Map<string, Range & Storage>,
  device: DeviceDescription,
): void {
  let inputBytes = 0;
  const inputs: Storage[] = [];
  for (const storage of program.storages.values()) {
    const bytes = byteLength(storage);
    if (storage.kind === "input") {
      inputs.push(storage);
      continue;
    }
    if (bytes > device.maxBufferSize) {
      throw new DeviceError(
        `${show(storage)} needs ${bytes} bytes; this device allows ${device.maxBufferSize} in one buffer`,
        {
          hint: storage.kind === "state"
            ? "train fewer values: lower adapter.rank, or name fewer tensors in student.train"
            : "use a smaller model or a weight type with fewer bits",
        },
      );
    }
    const buffer = buffers.push({ label: storage.name, category: storage.category, bytes, storage }) - 1;
    storages.set(storage.name, { ...storage, buffer, offset: 0, bytes });
  }
  if (inputs.length === 0) return;
  const buffer = buffers.length;
  for (const storage of inputs) {
    storages.set(storage.name, { ...storage, buffer, offset: inputBytes, bytes: byteLength(storage) });
    inputBytes += align(byteLength(storage));
  }
  buffers.push({ label: "inputs", category: "inputs", bytes: inputBytes, storage: undefined });
}

interface Root {
  readonly storage?: Storage;
  readonly arena: number;
  readonly offset: number;
  readonly byteOffset: number;
}

function placeIntermediates(graph: Graph, nodes: readonly Lowered[], device: DeviceDescription) {
  const lives = new Map<Tensor, { first: number; last: number }>();
  const touch = (tensor: Tensor, at: number) => {
    const { root } = rootOf(tensor);
    if (root.storage) return;
    const life = lives.get(root);
    if (life) life.last = at;
    else lives.set(root, { first: at, last: at });
  };
  nodes.forEach(({ node, scratch }, at) => {
    node.outputs.forEach((t) => touch(t, at));
    node.inputs.forEach((t) => touch(t, at));
    scratch.forEach((t) => touch(t, at));
  });
  for (const t of graph.outputs.values()) touch(t, nodes.length);

  const tensors = [...lives.keys()];
  const demands: Demand[] = tensors.map((t) => ({ bytes: byteLength(t), ...lives.get(t)! }));
  for (const [i, t] of tensors.entries()) {
    if (demands[i]!.bytes > device.maxBufferSize) {
      throw new DeviceError(
        `${t.producer?.path ?? graph.name}: ${show(t)} takes ${
          demands[i]!.bytes
        } bytes; a buffer of this device holds at most ${device.maxBufferSize}`,
        { hint: "Lower train.tokensPerMicroBatch or train.headChunk." },
      );
    }
  }
  const { placements, arenaBytes, lowerBound } = pack(demands, device.maxBufferSize);
  const placementOf = new Map(tensors.map((t, i) => [t, placements[i]!]));
  const rangeOf = (tensor: Tensor): Root => {
    const { root, byteOffset } = rootOf(tensor);
    if (root.storage) return { storage: root.storage, arena: 0, offset: 0, byteOffset };
    const placement = placementOf.get(root);
    if (!placement) throw new ShapeError(`${show(root)} is used but was never made; this is a bug`);
    return { ...placement, byteOffset };
  };
  return { arenaBytes, rangeOf, live: lowerBound };
}

/** Size structs of all dispatches, equal ones stored once. */
class SizeWords {
  readonly #chunks: Uint32Array[] = [];
  readonly #offsetOf = new Map<string, number>();

  add(words: readonly SizeWord[]): number {
    const padded = new Uint32Array(Math.max(64, Math.ceil(words.length / 64) * 64));
    const floats = new Float32Array(padded.buffer);
    words.forEach((word, i) => {
      if (typeof word === "number") padded[i] = word;
      else if ("f32" in word) floats[i] = word.f32;
      else padded[i] = word.index;
    });
    const key = padded.join();
    let offset = this.#offsetOf.get(key);
    if (offset === undefined) {
      offset = this.#chunks.reduce((sum, c) => sum + c.byteLength, 0);
      this.#chunks.push(padded);
      this.#offsetOf.set(key, offset);
    }
    return offset;
  }

  words(): Uint32Array {
    const all = new Uint32Array(this.#chunks.reduce((sum, c) => sum + c.length, 0));
    let at = 0;
    for (const chunk of this.#chunks) {
      all.set(chunk, at);
      at += chunk.length;
    }
    return all;
  }
}

function isSameRange(a: Range, b: Range): boolean {
  return a.buffer === b.buffer && a.offset === b.offset && a.bytes === b.bytes;
}

function planDispatch(
  dispatch: Dispatch,
  node: Node,
  range: (t: Tensor | Window) => Range,
  sizes: SizeWords,
  device: DeviceDescription,
): PlannedDispatch {
  const declared = parseBindings(dispatch.wgsl).filter((b) => b.group === 0).sort((a, b) =>
    a.binding - b.binding
  );
  const where = `kernel ${dispatch.kernel} at ${node.path}`;
  if (declared.length !== dispatch.tensors.length) {
    throw new ShapeError(
      `${where} declares ${declared.length} storage bindings, ${dispatch.tensors.length} tensors are given`,
    );
  }
  if (declared.length > device.maxStorageBuffers) {
    throw new DeviceError(
      `${where} binds ${declared.length} buffers; this device allows ${device.maxStorageBuffers}`,
    );
  }
  const bindings = dispatch.tensors.map(range);
  bindings.forEach((b, i) => {
    if (b.bytes > device.maxBindingSize) {
      const t = dispatch.tensors[i]!;
      throw new DeviceError(
        `${where}: ${
          show("byteOffset" in t ? t.tensor : t)
        } needs a binding of ${b.bytes} bytes; this device allows ${device.maxBindingSize}`,
        {
          hint:
            "Lower train.tokensPerMicroBatch or train.headChunk; a tensor of student.train that is so large " +
            "cannot be trained on this device.",
        },
      );
    }
    if (b.offset % device.offsetAlignment !== 0) {
      throw new ShapeError(
        `${where}: binding ${i} begins at byte ${b.offset}, which is not a multiple of ${device.offsetAlignment}`,
      );
    }
  });
  const written = new Set<number>();
  declared.forEach((d, i) => d.kind === "read_write" && written.add(bindings[i]!.buffer));
  const writable = new Set<number>();
  declared.forEach((d, i) =>
    d.kind === "read" && written.has(bindings[i]!.buffer) && writable.add(d.binding)
  );
  let { wgsl } = dispatch;
  for (const twin of writable) {
    const of = [...writable].find((other) => other < twin && isSameRange(bindings[other]!, bindings[twin]!));
    const joined = of === undefined ? undefined : joinBindings(wgsl, twin, of);
    if (joined === undefined) continue;
    wgsl = joined;
    writable.delete(twin);
  }
  const overlaps = (a: Range, b: Range) =>
    a.buffer === b.buffer && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
  // One buffer is either written to in a dispatch or not, so all of its bindings go the same way.
  const onlyRead = new Set(
    bindings.filter((mine, i) => {
      const t = dispatch.tensors[i]!;
      const { dtype } = "byteOffset" in t ? t.tensor : t;
      return dtype !== "f32" || bindings.some((other, j) => j !== i && overlaps(mine, other));
    }).map(({ buffer }) => buffer),
  );
  const writableTogether = new Set(writable);
  declared.forEach((d, i) =>
    d.kind === "read" && !onlyRead.has(bindings[i]!.buffer) && writableTogether.add(d.binding)
  );
  declared.forEach((d, i) => {
    if (d.kind !== "read_write") return;
    bindings.forEach((other, j) => {
      if (j !== i && overlaps(bindings[i]!, other)) {
        throw new ShapeError(`${where}: bindings ${i} and ${j} overlap and one is written; this is a bug`);
      }
    });
  });
  if (dispatch.groups.some((n) => n < 1 || n > device.maxWorkgroupsPerDimension || !Number.isInteger(n))) {
    throw new ShapeError(
      `${where}: a grid of ${dispatch.groups.join(" x ")} workgroups is not possible on this device`,
    );
  }
  const bytes = bindings.reduce((sum, b) => sum + b.bytes, 0);
  return {
    kernel: dispatch.kernel,
    path: node.path,
    layer: node.layer?.name,
    wgsl,
    bindings,
    writable,
    writableTogether,
    sizeOffset: sizes.add(dispatch.size),
    groups: dispatch.groups,
    flops: dispatch.flops ?? 0,
    bytes,
    traffic: dispatch.traffic ?? bytes,
  };
}
