/**
 * Symbolic tensors of static shape and the graph that tracing a model builds. Nothing is computed here: a node says which op
 * makes which tensors from which, in program order.
 *
 * A graph is one named block of a program (`microBatch`, `update`, `evaluate` ...). Blocks share storage: weights, state and
 * inputs are declared once in a {@linkcode StorageSet} and used in any block.
 *
 * @module
 */
import { ShapeError } from "../base/errors.ts";
import type { DeviceDescription } from "../gpu/description.ts";
import { type DType, STORAGES, type TensorSpec } from "./weight_storage.ts";

export { byteLength, type DType, elementCount, type TensorSpec } from "./weight_storage.ts";

/** What persists outside the steps: frozen weights, state that blocks assign in place, inputs the host writes each step. */
export interface Storage extends TensorSpec {
  readonly kind: "weight" | "state" | "input";
  readonly name: string;
  /** The line under which `estimate` counts its bytes. */
  readonly category: string;
  /** Of a weight: whether it is filled while the program runs, and not before. */
  readonly late?: boolean;
}

/** The storages of a program, by unique name. */
export class StorageSet {
  readonly #byName = new Map<string, Storage>();

  /** Declares a storage, or returns the one of that name if it is identical. */
  declare(storage: Storage): Storage {
    const known = this.#byName.get(storage.name);
    if (known) {
      if (
        known.kind !== storage.kind || known.dtype !== storage.dtype ||
        String(known.shape) !== String(storage.shape)
      ) {
        throw new ShapeError(`two storages are named "${storage.name}": ${show(known)} and ${show(storage)}`);
      }
      return known;
    }
    this.#byName.set(storage.name, storage);
    return storage;
  }

  values(): IterableIterator<Storage> {
    return this.#byName.values();
  }
}

/** A value in a graph. */
export class Tensor implements TensorSpec {
  readonly graph: Graph;
  readonly id: number;
  readonly shape: readonly number[];
  readonly dtype: DType;
  /** The node that makes it; undefined for a storage. */
  readonly producer: Node | undefined;
  readonly storage: Storage | undefined;

  constructor(
    graph: Graph,
    id: number,
    spec: TensorSpec,
    producer: Node | undefined,
    storage: Storage | undefined,
  ) {
    this.graph = graph;
    this.id = id;
    this.shape = spec.shape;
    this.dtype = spec.dtype;
    this.producer = producer;
    this.storage = storage;
  }

  /** The size of dimension `i`; negative counts from the end. */
  dim(i: number): number {
    const size = this.shape.at(i);
    if (size === undefined) throw new ShapeError(`${show(this)} has no dimension ${i}`);
    return size;
  }
}

/** One application of an op. */
export interface Node {
  readonly op: Op<unknown>;
  readonly inputs: readonly Tensor[];
  readonly attributes: unknown;
  readonly outputs: readonly Tensor[];
  /** The layer it was traced in, if any: the unit of activation checkpointing. */
  readonly layer: Layer | undefined;
  /** A layer, or what stands for its backward pass, if any: nodes of one stretch follow each other closely. */
  readonly stretch: object | undefined;
  /** Where in the model: `student/layers.3/self_attn.q_proj`. */
  readonly path: string;
}

/** A repeated part of a model whose activations may be recomputed instead of kept. */
export interface Layer {
  readonly name: string;
  readonly recompute: boolean;
  /**
   * The step scalar that says whether it takes part, where it may be left out: above 0.5 it does. Its nodes, those of its backward pass
   * too, need not run then, so nothing outside may read what they make without asking the gate.
   */
  readonly gate?: StepScalar;
}

/** A number that the host may change at every step without a new plan; see {@linkcode Graph.scalar}. */
export interface StepScalar {
  readonly name: string;
  /** Position in the step buffer, in 32-bit words. */
  readonly index: number;
}

/** The step scalars of a program: at most 256 words, one small uniform buffer written once a step. */
export class StepScalars {
  readonly #index = new Map<string, number>();
  /** Words in the step buffer. */
  static readonly capacity = 256;

  /** The scalar of that name, declared on first use. */
  get(name: string): StepScalar {
    let index = this.#index.get(name);
    if (index === undefined) {
      index = this.#index.size;
      if (index >= StepScalars.capacity) {
        throw new ShapeError(
          `more than ${StepScalars.capacity} numbers change every step; "${name}" is one too many`,
        );
      }
      this.#index.set(name, index);
    }
    return { name, index };
  }

  /** The word of a scalar that was declared, undefined where none of that name was. */
  indexOf(name: string): number | undefined {
    return this.#index.get(name);
  }

  names(): string[] {
    return [...this.#index.keys()];
  }
}

/** Fewer bits than f32 that operands of a product may be rounded to; sums are f32 all the same. */
export type Compute = "f16";

/** One block of a program under construction. */
export class Graph {
  readonly name: string;
  readonly storages: StorageSet;
  readonly scalars: StepScalars;
  readonly nodes: Node[] = [];
  /** Tensors that the block's reader wants back, by name. */
  readonly outputs: Map<string, Tensor> = new Map();
  /** What models round the operands of their frozen linear layers to; f32 where absent. */
  compute?: Compute | undefined;
  readonly #tensorOf = new Map<Storage, Tensor>();
  #nextId = 0;
  #path: string[] = [];
  #layer: Layer | undefined;
  #stretch: object | undefined;

  constructor(name: string, storages: StorageSet, scalars: StepScalars) {
    this.name = name;
    this.storages = storages;
    this.scalars = scalars;
  }

  /** The tensor of a storage in this block. */
  use(storage: Storage): Tensor {
    const declared = this.storages.declare(storage);
    let tensor = this.#tensorOf.get(declared);
    if (!tensor) {
      tensor = new Tensor(this, this.#nextId++, declared, undefined, declared);
      this.#tensorOf.set(declared, tensor);
    }
    return tensor;
  }

  /** A frozen weight, bound late. */
  weight(name: string, shape: readonly number[], dtype: DType, category = "weights"): Tensor {
    return this.use({ kind: "weight", name, shape, dtype, category });
  }

  /** Memory that persists between steps and is assigned in place; zero at first. */
  state(name: string, shape: readonly number[], dtype: DType, category = "state"): Tensor {
    ensureComputed("state", { name, shape, dtype });
    return this.use({ kind: "state", name, shape, dtype, category });
  }

  /** Memory that the host writes before a step. */
  input(name: string, shape: readonly number[], dtype: DType): Tensor {
    return this.use({ kind: "input", name, shape, dtype, category: "inputs" });
  }

  /** A number the host writes before each step: learning rate, 1/N, temperature, seed. */
  scalar(name: string): StepScalar {
    return this.scalars.get(name);
  }

  /** Names a tensor that can be read back after the block has run. */
  output(name: string, tensor: Tensor): void {
    this.outputs.set(name, tensor);
  }

  /**
   * Appends a node.
   *
   * @throws {ShapeError} if the op does not accept these shapes
   */
  add<A>(op: Op<A>, inputs: readonly Tensor[], attributes: A): readonly Tensor[] {
    for (const input of inputs) {
      if (input.graph !== this) {
        throw new ShapeError(
          `${op.name}: ${show(input)} belongs to block "${input.graph.name}", not "${this.name}"`,
        );
      }
    }
    const specs = op.infer(inputs, attributes);
    const outputs: Tensor[] = [];
    const node: Node = {
      op,
      inputs,
      attributes,
      outputs,
      layer: this.#layer,
      stretch: this.#stretch ?? this.#layer,
      path: this.#path.join("/"),
    };
    const isView = op.alias !== undefined && !op.mutates;
    if (!isView) specs.forEach((spec) => ensureComputed(op.name, spec));
    for (const spec of specs) outputs.push(new Tensor(this, this.#nextId++, spec, node, undefined));
    this.nodes.push(node);
    return outputs;
  }

  /** Traces `body` under a name that error messages and profiles show. */
  within<T>(name: string, body: () => T): T {
    this.#path.push(name);
    try {
      return body();
    } finally {
      this.#path.pop();
    }
  }

  /**
   * Traces one layer of a model; with `recompute` its activations are recomputed in the backward pass.
   *
   * @param gate Where the layer may be left out; see {@linkcode Layer.gate}
   */
  layer<T>(name: string, recompute: boolean, body: () => T, gate?: StepScalar): T {
    return this.partOf({ name, recompute, ...(gate ? { gate } : {}) }, () => this.within(name, body));
  }

  /** Traces `body` as a part of a layer that has been traced before, or of none. */
  partOf<T>(layer: Layer | undefined, body: () => T): T {
    const outer = this.#layer;
    this.#layer = layer;
    try {
      return body();
    } finally {
      this.#layer = outer;
    }
  }

  /** Traces `body` as a stretch of its own: see {@linkcode Node.stretch}. */
  stretch<T>(stretch: object | undefined, body: () => T): T {
    const outer = this.#stretch;
    this.#stretch = stretch;
    try {
      return body();
    } finally {
      this.#stretch = outer;
    }
  }

  /** Traces what several layers share outside the one that asks for it first, if that one may be left out. */
  ungated<T>(body: () => T): T {
    return this.#layer?.gate ? this.partOf(undefined, body) : body();
  }
}

/** A few bytes to bind where a kernel declares an operand that this launch does not have. */
export function nothing(graph: Graph): Tensor {
  return graph.state("nothing", [64], "f32", "program");
}

/** Kernels write only some types; others hold frozen weights. */
function ensureComputed(what: string, spec: TensorSpec & { readonly name?: string }): void {
  if (STORAGES[spec.dtype].computed) return;
  throw new ShapeError(`${what}: kernels cannot write ${show(spec)}; ${spec.dtype} is for frozen weights`);
}

/** A tensor or storage as error messages show it. */
export function show(
  t: TensorSpec & { readonly name?: string; readonly storage?: Storage | undefined },
): string {
  const name = t.name ?? t.storage?.name;
  return `${t.dtype}[${t.shape.join(", ")}]${name ? ` "${name}"` : ""}`;
}

/** A part of a tensor, in bytes; both aligned to 256. */
export interface Window {
  readonly tensor: Tensor;
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** A word of a kernel's size struct: an integer as u32, or a float. */
export type SizeWord = number | { readonly f32: number } | StepScalar;

/** One kernel launch. */
export interface Dispatch {
  /** What `--profile` sums times by: the kernel and what sets its variant apart. */
  readonly kernel: string;
  /** WGSL with entry point `main`, template already expanded. */
  readonly wgsl: string;
  /** Group 0, in binding order. */
  readonly tensors: readonly (Tensor | Window)[];
  /** The words of `@group(1) @binding(0) var<uniform> size`, in order; a step scalar becomes its index. */
  readonly size: readonly SizeWord[];
  readonly groups: readonly [number, number, number];
  /** Floating-point operations, for the profile. */
  readonly flops?: number;
  /** Bytes that its tiling moves between memory and the kernel, where that is not each binding once. */
  readonly traffic?: number;
  /** Of a kernel that was chosen: operands that what it says of its traffic leaves out, and the bytes that it moves of them. */
  readonly beside?: { readonly tensors: readonly Tensor[]; readonly bytes: number };
  /**
   * Where this launch and others of the same text can be one: the text reads `sizes[group.z]`, of an array of MOST_TOGETHER size structs, where
   * others read `size`. Of each binding, the size word that says how many 32-bit words behind its beginning the operand is; undefined where
   * all have one operand. Size structs are a multiple of 16 bytes then.
   */
  readonly begins?: readonly (number | undefined)[];
}

/** What a gradient rule sees. */
export interface GradientContext<A> {
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  readonly attributes: A;
  /** dLoss/d output, undefined where the loss does not depend on it. */
  readonly outputGradients: readonly (Tensor | undefined)[];
  /** Which inputs lead to something trainable. */
  readonly needed: readonly boolean[];
}

/** What an op has several kernels for. `S` is what they depend on, `V` the parameters of one of them; both plain values. */
export interface Variants<S, V> {
  /** The op, or the part of it. */
  readonly kind: string;
  /** Shapes of one class have one best kernel: what a choice is kept under, after the kind. See `sizeClass`. */
  shapeClass(shape: S): string;
  /** All that can run on this device, at least one; the first is what is taken where nothing was measured. */
  candidates(shape: S, device: DeviceDescription): readonly V[];
  /** Tells a variant from the others of its kind, across versions and devices. */
  name(variant: V): string;
  /** Seconds that a model of the device gives; only their order counts. */
  cost(shape: S, variant: V, device: DeviceDescription): number;
  /**
   * Bytes that move between memory and the kernel in all, with caches left out: what its tiling reads again counts again. A count from
   * sizes alone, nothing measured.
   */
  traffic(shape: S, variant: V): number;
  /**
   * Traces a block that runs the op in this shape: what is timed.
   *
   * @returns What its inputs hold, by name; any numbers will do for the others
   */
  trial(graph: Graph, shape: S): TrialInputs | void;
}

/** Inputs of a trial that not any numbers will do for. */
export type TrialInputs = Readonly<Record<string, Int32Array | Float32Array>>;

/** What a lowering rule sees and fills. */
export interface LoweringContext<A> {
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  readonly attributes: A;
  readonly device: DeviceDescription;
  /** The variant of a kernel to use, where the op has several for a shape. */
  choose<S, V>(variants: Variants<S, V>, shape: S): V;
  /** Memory that lives only during this node. */
  scratch(shape: readonly number[], dtype: DType): Tensor;
  dispatch(dispatch: Dispatch): void;
}

/** A tensor operation. `A` is the type of its attributes: plain, immutable values. */
export interface Op<A> {
  readonly name: string;
  /**
   * Shapes and dtypes of the outputs.
   *
   * @throws {ShapeError} with the op and every shape
   */
  infer(inputs: readonly Tensor[], attributes: A): readonly TensorSpec[];
  /** Gradients of the inputs; absent for ops that nothing differentiates through. */
  gradient?(context: GradientContext<A>): readonly (Tensor | undefined)[];
  lower(context: LoweringContext<A>): void;
  /**
   * For output `o`, the input whose memory it is, starting at `byteOffset`: a view, or (with `mutates`) an update in place.
   * Views are never lowered.
   */
  alias?(output: number, attributes: A): { readonly input: number; readonly byteOffset: number } | undefined;
  /**
   * Applications of which this says the same are made by kernels of one text, at least as a rule, and each too small to keep a device busy:
   * the planner brings those that need nothing of each other together and makes one dispatch of them. Undefined for what stands alone.
   */
  together?(inputs: readonly Tensor[], attributes: A): string | undefined;
  /** The op writes into the memory of an aliased input. It is kept even if nobody uses its output. */
  readonly mutates?: boolean;
  /** Its output is constant in every gradient, whatever lies behind it. */
  readonly stopsGradients?: boolean;
}
