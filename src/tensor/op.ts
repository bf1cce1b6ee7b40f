/**
 * What an op is: a shape rule, a gradient rule and kernels. Each op is one file under `ops/`; adding one touches nothing else
 * but the index.
 *
 * @module
 */
import type { AdapterDescription } from "../gpu/description.ts";
import { ShapeError } from "../base/errors.ts";
import { type DType, type Node, show, type StepScalar, type Tensor, type TensorSpec } from "./graph.ts";

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

/** What a lowering rule sees and fills. */
export interface LoweringContext<A> {
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  readonly attributes: A;
  readonly adapter: AdapterDescription;
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
  /** The op writes into the memory of an aliased input. It is kept even if nobody uses its output. */
  readonly mutates?: boolean;
  /** Its output is constant in every gradient, whatever lies behind it. */
  readonly stopsGradients?: boolean;
}

/** Whether a node only renames memory: it has no kernel. */
export function isView(node: Node): boolean {
  return !node.op.mutates && node.op.alias !== undefined && node.op.alias(0, node.attributes) !== undefined;
}

/** Follows views and updates in place to the tensor that owns the memory. */
export function rootOf(tensor: Tensor): { root: Tensor; byteOffset: number } {
  let byteOffset = 0;
  let t = tensor;
  for (;;) {
    const node = t.producer;
    const output = node?.outputs.indexOf(t) ?? -1;
    // A node's scratch is none of its outputs, and nobody's memory but its own.
    const alias = output < 0 ? undefined : node?.op.alias?.(output, node.attributes);
    if (!node || !alias) return { root: t, byteOffset };
    byteOffset += alias.byteOffset;
    t = node.inputs[alias.input]!;
  }
}

/** Refuses a call with the op's name and every shape. */
export function refuse(op: string, inputs: readonly Tensor[], why: string): never {
  throw new ShapeError(`${op}(${inputs.map(show).join(", ")}): ${why}`);
}

/** Requires that `condition` holds; see {@linkcode refuse}. */
export function ensure(
  condition: boolean,
  op: string,
  inputs: readonly Tensor[],
  why: string,
): asserts condition {
  if (!condition) refuse(op, inputs, why);
}

/**
 * A one-dimensional grid of `count` workgroups, folded into two dimensions where the adapter's limit asks for it. Kernels
 * number their group `group_id.x + group_id.y * num_workgroups.x` and return where that is `>= count`.
 */
export function grid(count: number, adapter: AdapterDescription): [number, number, number] {
  const limit = adapter.maxWorkgroupsPerDimension;
  if (count <= limit) return [Math.max(1, count), 1, 1];
  const y = Math.ceil(count / limit);
  return [Math.ceil(count / y), y, 1];
}
