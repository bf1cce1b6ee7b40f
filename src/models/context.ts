/**
 * What a model's forward pass is traced against. A model is a plain function; everything that differs between a teacher, a
 * student with adapters and a decoder with a cache is behind this interface.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";
import { select, stepScalar } from "../tensor/expr/mod.ts";
import type { DType, Graph, Tensor, TensorSpec } from "../tensor/graph.ts";
import { scatterRows } from "../tensor/ops/cache.ts";
import { joinColumns, splitColumns } from "../tensor/ops/columns.ts";
import { linear } from "../tensor/ops/matmul.ts";
import { pointwise } from "../tensor/ops/pointwise.ts";
import { readAs } from "../tensor/ops/views.ts";
import type { ExpertLayer, ExpertsHook, LinearHook, ModelHooks, WeightHook } from "./hooks.ts";

export type { ExpertLayer, ExpertsHook, LinearHook, ModelHooks, WeightHook } from "./hooks.ts";

/** The per-token arrays of a packed stream, as inputs of a block; each i32 [T]. */
export interface StreamInputs {
  readonly tokens: Tensor;
  readonly positions: Tensor;
  /** First and one-past-last key that a token attends. */
  readonly start: Tensor;
  readonly end: Tensor;
  /** One more than the largest position: rows of tables made on the host. */
  readonly length: number;
  /**
   * Rows of a table that has `length` rows for short sequences, then as many for those of more than `beyond` tokens: positions, and `length`
   * more in long ones. Whoever writes the other arrays writes this too; see {@linkcode switchedRows}.
   */
  switched(beyond: number): Tensor;
  /** Whether each token is of another sequence than its neighbours. */
  readonly apart: boolean;
  /** Keys and values of all sequences that are written: where a token's go, and how many there may be. */
  readonly cache?: { readonly slots: Tensor; readonly rows: number };
}

/** How long the sequences of a stream are, and where it lies in its program. */
export interface StreamOptions {
  /** One more than the largest position. */
  readonly length: number;
  /** Keys and values that the cache holds; without one when absent. */
  readonly cacheRows?: number;
  /** Tells streams of different lengths in one program apart. */
  readonly prefix?: string;
  /** Whether each token is of another sequence than its neighbours; they are not when absent. */
  readonly apart?: boolean;
  /** Where its tokens come from another kernel: i32 [T]. From the host when absent. */
  readonly tokens?: Tensor;
}

/** The inputs of a stream of `tokens` tokens in a block. */
export function streamInputs(
  graph: Graph,
  tokens: number,
  { length, cacheRows, prefix = "", apart = false, tokens: chosen }: StreamOptions,
): StreamInputs {
  const input = (name: string) => graph.input(`${prefix}${name}`, [tokens], "i32");
  return {
    tokens: chosen ?? input("tokens"),
    positions: input("positions"),
    start: input("start"),
    end: input("end"),
    ...{ length, apart },
    switched: (beyond) => input(`positions${SWITCH}${beyond} of ${length}`),
    ...(cacheRows === undefined ? {} : { cache: { slots: input("slots"), rows: cacheRows } }),
  };
}

const SWITCH = " beyond ";

/**
 * The inputs of {@linkcode StreamInputs.switched} among the storages of a program, with their rows.
 *
 * @param names Storages of the program
 * @param positions i32 [T]
 * @param reach How many tokens the sequence of each position has, as far as it is known
 * @param prefix See {@linkcode StreamOptions}
 */
export function switchedRows(
  names: Iterable<string>,
  positions: Int32Array,
  reach: (t: number) => number,
  prefix = "",
): [name: string, rows: Int32Array][] {
  return switchesOf(names, prefix).map(({ name, beyond, length }) => [
    name,
    positions.map((position, t) => reach(t) > beyond ? position + length : position),
  ]);
}

/** Numbers of tokens above which sequences of a stream have other tables, so that what a cache holds of them has to be made again. */
export function switchPoints(names: Iterable<string>, prefix = ""): number[] {
  return switchesOf(names, prefix).map(({ beyond }) => beyond);
}

function switchesOf(
  names: Iterable<string>,
  prefix: string,
): { name: string; beyond: number; length: number }[] {
  const before = `${prefix}positions${SWITCH}`;
  return [...names].filter((name) => name.startsWith(before)).map((name) => {
    const [beyond, length] = name.slice(before.length).split(" of ").map(Number) as [number, number];
    return { name, beyond, length };
  });
}

/** Called with named inner values of a model, for losses over hidden states. */
export type TapHook = (name: string, x: Tensor) => void;

/** How a model's weights are named and stored in the program. */
export interface WeightSpecs {
  /** Distinguishes models in one program; models that share weights share the prefix. */
  readonly prefix: string;
  /** Category of the bytes in `estimate`. */
  readonly category: string;
  /** Storage type of a tensor by its Hugging Face name, and the name it is stored under (layers cut away renumber). */
  resolve(name: string): { readonly name: string; readonly dtype: DType };
  /** The buffer, filled while the program runs, that a weight of such a stored name lies in; weights have their own when absent. */
  buffer?(stored: string): TensorSpec | undefined;
}

/** A weight of a model by its Hugging Face name. */
export function modelWeight(
  graph: Graph,
  weights: WeightSpecs,
  name: string,
  shape: readonly number[],
): Tensor {
  const { name: stored, dtype } = weights.resolve(name);
  return storedWeight(graph, weights, stored, { shape, dtype });
}

function storedWeight(graph: Graph, weights: WeightSpecs, stored: string, spec: TensorSpec): Tensor {
  const { prefix, category } = weights;
  const name = `${prefix}${stored}`;
  const buffer = weights.buffer?.(stored);
  if (!buffer) return graph.weight(name, spec.shape, spec.dtype, category);
  const lies = graph.use({ ...buffer, kind: "weight", name, category, late: true });
  const isWhole = buffer.dtype === spec.dtype && String(buffer.shape) === String(spec.shape);
  return isWhole ? lies : readAs(lies, spec);
}

const STACK = " to ";

/** Name under which weights that are stacked are stored: that of the first and how many there are. */
function stackName(first: string, count: number): string {
  return `${first}${STACK}${count}`;
}

/** The weights behind a stored name: several where they are stacked. */
export function storedNames(name: string): string[] {
  const [first, count] = name.split(STACK);
  if (count === undefined) return [name];
  // The last number is the expert's: that of the layer stands before it.
  return Array.from({ length: Number(count) }, (_, i) => first!.replace(/\.0(\.[^\d]*)$/, `.${i}$1`));
}

/** Name under which a model's layer is traced: what a block can be run without. */
export function layerName(model: string, index: number): string {
  return `${model}/layers.${index}`;
}

/** Name of the step scalar that switches a gated layer: 1 on, 0 off. */
export function layerGate(model: string, index: number): string {
  return `${layerName(model, index)}.gate`;
}

/** What stands for inputs and outputs of linear layers in a model of which only a part of the width takes part. */
export interface NarrowedLinears {
  /** f32 [T, in] */
  input(name: string, x: Tensor): Tensor;
  /** f32 [T, out] */
  output(name: string, y: Tensor): Tensor;
}

/** Called in place of every layer, counted from 0: `layer` traces it. */
export type LayerHook = (index: number, x: Tensor, layer: (x: Tensor) => Tensor) => Tensor;

/** How a model is traced into a block. */
export interface ModelTracing extends ModelHooks {
  readonly onTap?: TapHook;
  /** Whether activations are computed again in the backward pass. */
  readonly recompute?: boolean;
  /**
   * Whether each layer can be switched off by its {@linkcode layerGate}: what comes in then goes out, bit for bit, whatever the layer
   * makes of it, and its kernels need not run.
   */
  readonly gated?: boolean;
  readonly narrowed?: NarrowedLinears;
  readonly onLayer?: LayerHook | undefined;
}

/** The tracing context of one model in one block. */
export class ModelContext {
  readonly graph: Graph;
  readonly inputs: StreamInputs;
  readonly weights: WeightSpecs;
  readonly #onLinear: LinearHook | undefined;
  readonly #onExperts: ExpertsHook | undefined;
  readonly #onWeight: WeightHook | undefined;
  readonly #onTap: TapHook | undefined;
  readonly #recompute: boolean;
  readonly #gated: boolean;
  readonly #narrowed: NarrowedLinears | undefined;
  readonly #onLayer: LayerHook | undefined;
  readonly #name: string;

  constructor(
    graph: Graph,
    name: string,
    inputs: StreamInputs,
    weights: WeightSpecs,
    options: ModelTracing = {},
  ) {
    this.graph = graph;
    this.inputs = inputs;
    this.weights = weights;
    this.#name = name;
    this.#onLinear = options.onLinear;
    this.#onExperts = options.onExperts;
    this.#onWeight = options.onWeight;
    this.#onTap = options.onTap;
    this.#recompute = options.recompute ?? false;
    this.#gated = options.gated ?? false;
    this.#narrowed = options.narrowed;
    this.#onLayer = options.onLayer;
  }

  /** A weight by its Hugging Face name, or the trained tensor in its place. */
  weight(name: string, shape: readonly number[]): Tensor {
    return this.#onWeight?.(name, shape) ?? modelWeight(this.graph, this.weights, name, shape);
  }

  /**
   * Weights of one shape, one after another in one tensor [count * rows, columns]: those of experts. They are frozen.
   *
   * @param nameOf The Hugging Face name of each
   */
  stacked(count: number, nameOf: (i: number) => string, shape: readonly [number, number]): Tensor {
    for (let i = 0; i < count; i++) {
      if (!this.#onWeight?.(nameOf(i), shape)) continue;
      throw new InputError(`${nameOf(i)} belongs to an expert, and experts cannot be trained`, {
        where: "recipe student.train",
        hint: "Name other tensors.",
      });
    }
    const { name, dtype } = this.weights.resolve(nameOf(0));
    const stack = [count * shape[0], shape[1]];
    return storedWeight(this.graph, this.weights, stackName(name, count), { shape: stack, dtype });
  }

  /**
   * A table that the family makes on the host, such as the rotary angles: a row of `width` numbers for each position, so many times over.
   */
  table(name: string, width: number, times = 1): Tensor {
    const shape = [times * this.inputs.length, width];
    return this.graph.weight(`${this.weights.prefix}${name}`, shape, "f32", this.weights.category);
  }

  /** Keys or values of the stream, f32 [T, W]: with a cache they are written into it, and all of it comes back. */
  cached(name: string, x: Tensor): Tensor {
    const { cache } = this.inputs;
    if (!cache) return x;
    const at = `${this.weights.prefix}cache.${name}`;
    return scatterRows(
      this.graph.state(at, [cache.rows, x.dim(1)], "f32", "keys and values"),
      x,
      cache.slots,
    );
  }

  /**
   * y = x W^T (+ b), and what an adapter attached to `name` adds.
   *
   * @param name Module path, such as `model.layers.0.self_attn.q_proj`
   * @param x f32 [T, in]
   */
  linear(name: string, x: Tensor, outFeatures: number): Tensor {
    return this.graph.within(name, () => {
      const weight = this.weight(`${name}.weight`, [outFeatures, x.dim(1)]);
      const input = this.#narrowed?.input(name, x) ?? x;
      // Trained tensors stay exact: their own steps are smaller than what rounding loses.
      const compute = weight.storage?.kind === "weight" ? this.graph.compute : undefined;
      const base = () => linear(input, weight, compute);
      const y = this.#onLinear ? this.#onLinear(name, input, weight, base) : base();
      return this.#narrowed?.output(name, y) ?? y;
    });
  }

  /**
   * Outputs of a layer of experts, and what an adapter attached to it adds.
   *
   * @param x f32 [S, in]
   * @param weights Of the layer's modules, each [experts * out, in]
   * @param linear Multiplies rows by what is their expert's
   * @returns Those of each module, f32 [S, out]
   */
  experts(
    layer: ExpertLayer,
    x: Tensor,
    weights: readonly Tensor[],
    linear: (rows: Tensor, weight: Tensor) => Tensor,
  ): readonly Tensor[] {
    return this.graph.within(layer.name, () => {
      const base = () => weights.map((weight) => linear(x, weight));
      const joined = () => weights.length > 1 ? joinColumns(base()) : base()[0]!;
      const adapted = this.#onExperts?.(layer, x, joined, linear);
      if (!adapted) return base();
      if (weights.length === 1) return [adapted];
      return splitColumns(adapted, weights.map((weight) => weight.dim(0) / layer.experts));
    });
  }

  /** One layer: the unit of activation checkpointing, and of what may be left out. */
  layer(index: number, x: Tensor, body: (x: Tensor) => Tensor): Tensor {
    return this.#onLayer?.(index, x, (x) => this.#layer(index, x, body)) ?? this.#layer(index, x, body);
  }

  #layer(index: number, x: Tensor, body: (x: Tensor) => Tensor): Tensor {
    const name = layerName(this.#name, index);
    if (!this.#gated) return this.graph.layer(name, this.#recompute, () => body(x));
    const switched = this.graph.scalar(layerGate(this.#name, index));
    const made = this.graph.layer(name, this.#recompute, () => body(x), switched);
    const gate = stepScalar(switched.name);
    // Chosen, not multiplied: a layer that is off may hold anything, NaN too.
    return pointwise([x, made], (x, y) => select(gate.greaterThan(0.5), y!, x!));
  }

  /** Shows a value to losses over hidden states. */
  tap(name: string, x: Tensor): Tensor {
    this.#onTap?.(name, x);
    return x;
  }
}
