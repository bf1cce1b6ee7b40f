/**
 * From traced blocks to a plan: kernels for every node, offsets for every intermediate, sizes of every buffer. Pure: it takes
 * a description of a device, so `estimate` works where there is no GPU.
 *
 * @module
 */
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
import { align, type Demand, mostAlive, pack } from "./memory.ts";
import { type Dispatch, isView, rootOf, type Window } from "./op.ts";
import { optimise } from "./optimise.ts";
import { planLaunches, type PlannedDispatch, SizeWords } from "./planned_dispatch.ts";
import type { Range } from "./range.ts";
import { rotateInStores } from "./rotations.ts";
import { type Schedule, schedule } from "./together.ts";
import { type ChosenKernel, KernelChooser } from "./variants.ts";

export type { PlannedDispatch, Range };

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

/** Nodes that need nothing of each other, most often one; their launches, those that may be one in one list; and memory for the while. */
interface Lowered {
  readonly nodes: readonly Node[];
  readonly launches: readonly { readonly nodes: readonly Node[]; readonly dispatches: readonly Dispatch[] }[];
  readonly scratch: readonly Tensor[];
  /** Those whose memory is kept apart; see {@linkcode Schedule.apart}. */
  readonly apart: ReadonlySet<Node>;
}

/**
 * Plans a program for a device.
 *
 * @throws {DeviceError} if a tensor does not fit a binding or a buffer of this device
 */
export function plan(program: Program, device: DeviceDescription): Plan {
  const buffers: PlannedBuffer[] = [];
  const storages = new Map<string, Range & Storage>();
  const chooser = new KernelChooser(device);
  const optimised = program.blocks.map((graph) => ({
    graph,
    nodes: rotateInStores(graph, optimise(graph), device),
  }));
  const lowered = schedule(optimised).map((scheduled) => ({
    graph: scheduled.graph,
    nodes: lower(scheduled, device, chooser),
  }));
  placeStorages(program, buffers, storages, device);

  const packed = lowered.map(({ graph, nodes }) => placeIntermediates(graph, nodes, device));
  const firstArenas = KEPT.map(({ label }, kept) => {
    const first = buffers.length;
    const count = Math.max(0, ...packed.map((p) => p.arenaBytes[kept]!.length));
    for (let a = 0; a < count; a++) {
      const bytes = Math.max(...packed.map((p) => p.arenaBytes[kept]![a] ?? 0));
      buffers.push({ label: `${label} ${a}`, category: "activations", bytes, storage: undefined });
    }
    return first;
  });

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
        : { buffer: firstArenas[root.kept]! + root.arena, offset: root.offset };
      return { buffer: base.buffer, offset: base.offset + root.byteOffset + byteOffset, bytes };
    };
    const dispatches = nodes.flatMap(({ launches }) =>
      launches.flatMap(({ dispatches, nodes }) => planLaunches(dispatches, nodes, range, sizes, device))
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

/** Kernels of all nodes, in the order in which they are run. */
function lower(
  { graph, order, apart }: Schedule,
  device: DeviceDescription,
  chooser: KernelChooser,
): Lowered[] {
  return order.map((nodes): Lowered => {
    const scratch: Tensor[] = [];
    const each = nodes.map((node) => lowerNode(graph, node, device, chooser, scratch));
    const rounds = Math.max(...each.map((dispatches) => dispatches.length));
    // A node's own launches follow each other.
    const launches = Array.from({ length: rounds }, (_, round) => {
      const those = nodes.flatMap((node, i) => each[i]![round] ? [{ node, dispatch: each[i]![round] }] : []);
      return { nodes: those.map(({ node }) => node), dispatches: those.map(({ dispatch }) => dispatch) };
    });
    return { nodes, launches, scratch, apart };
  });
}

function lowerNode(
  graph: Graph,
  node: Node,
  device: DeviceDescription,
  chooser: KernelChooser,
  scratch: Tensor[],
): Dispatch[] {
  if (isView(node)) return [];
  const dispatches: Dispatch[] = [];
  let traffic: number | undefined;
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
  return shareTraffic(dispatches, traffic);
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
    d.tensors.filter((t) => "byteOffset" in t || !d.beside?.tensors.includes(t))
      .reduce((sum, t) => sum + ("byteOffset" in t ? t.byteLength : byteLength(t)), 0);
  const { kernel } = dispatches.reduce((a, b) => flopsOf(b) > flopsOf(a) ? b : a);
  const launches = dispatches.filter((d) => d.kernel === kernel);
  const beside = dispatches.filter((d) => d.kernel !== kernel && flopsOf(d) > 0);
  const flops = launches.reduce((sum, d) => sum + flopsOf(d), 0);
  if (flops === 0) return dispatches;
  const rest = traffic - beside.reduce((sum, d) => sum + bytesOf(d), 0);
  return dispatches.map((d) => {
    if (d.kernel !== kernel && !d.beside) return d;
    const own = d.kernel === kernel ? rest * flopsOf(d) / flops : bytesOf(d);
    return { ...d, traffic: own + (d.beside?.bytes ?? 0) };
  });
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

/** Where intermediates are kept: those of nodes that are brought together, and what these need for the while, apart from each other and all else. */
const KEPT = [{ label: "intermediates" }, { label: "small products" }, {
  label: "parts of small products",
}] as const;

interface Root {
  readonly storage?: Storage;
  /** Index of {@linkcode KEPT}. */
  readonly kept: number;
  readonly arena: number;
  readonly offset: number;
  readonly byteOffset: number;
}

function placeIntermediates(graph: Graph, lowered: readonly Lowered[], device: DeviceDescription) {
  const lives = new Map<Tensor, { first: number; last: number; kept: number }>();
  const touch = (tensor: Tensor, at: number, kept = 0) => {
    const { root } = rootOf(tensor);
    if (root.storage) return;
    const life = lives.get(root);
    if (life) life.last = at;
    else lives.set(root, { first: at, last: at, kept });
  };
  lowered.forEach(({ nodes, scratch, apart }, at) => {
    for (const node of nodes) {
      const isSmall = apart.has(node);
      node.outputs.forEach((t) => touch(t, at, isSmall ? 1 : 0));
      node.inputs.forEach((t) => touch(t, at));
      scratch.filter((t) => t.producer === node).forEach((t) => touch(t, at, isSmall ? 2 : 0));
    }
  });
  for (const t of graph.outputs.values()) touch(t, lowered.length);

  const tensors = [...lives.keys()];
  const demandOf = (t: Tensor): Demand => ({ bytes: byteLength(t), ...lives.get(t)! });
  for (const t of tensors) {
    if (byteLength(t) > device.maxBufferSize) {
      throw new DeviceError(
        `${t.producer?.path ?? graph.name}: ${show(t)} takes ${
          byteLength(t)
        } bytes; a buffer of this device holds at most ${device.maxBufferSize}`,
        { hint: "Lower train.tokensPerMicroBatch or train.headChunk." },
      );
    }
  }
  const placementOf = new Map<Tensor, Omit<Root, "byteOffset">>();
  const packings = KEPT.map((_, kept) => {
    const those = tensors.filter((t) => lives.get(t)!.kept === kept);
    const packing = pack(those.map(demandOf), device.maxBufferSize);
    those.forEach((t, i) => placementOf.set(t, { kept, ...packing.placements[i]! }));
    return packing;
  });
  const rangeOf = (tensor: Tensor): Root => {
    const { root, byteOffset } = rootOf(tensor);
    if (root.storage) return { storage: root.storage, kept: 0, arena: 0, offset: 0, byteOffset };
    const placement = placementOf.get(root);
    if (!placement) throw new ShapeError(`${show(root)} is used but was never made; this is a bug`);
    return { ...placement, byteOffset };
  };
  const live = mostAlive(tensors.map(demandOf));
  return { arenaBytes: packings.map((p) => p.arenaBytes), rangeOf, live };
}
