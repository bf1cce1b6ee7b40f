/**
 * What ops are written with: each is a shape rule, a gradient rule and kernels, one file under `ops/`. What an op is stands in `graph.ts`,
 * because tensors and ops know each other; ops import it from here.
 *
 * @module
 */
import type { DeviceDescription } from "../gpu/description.ts";
import { ShapeError } from "../base/errors.ts";
import { type Node, type Op, show, type Tensor } from "./graph.ts";

export type { Dispatch, GradientContext, LoweringContext, Op, SizeWord, Window } from "./graph.ts";

/** So many applications are made by one launch at most, and so many size structs its kernel declares: a layer of a transformer has seven projections. */
export const MOST_TOGETHER = 8;

/** An application of an op whose attributes are of type `A`. */
export interface NodeOf<A> extends Node {
  readonly attributes: A;
}

/** Whether a node is an application of this op. */
export function applies<A>(node: Node, op: Op<A>): node is NodeOf<A> {
  return node.op === op;
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
 * A one-dimensional grid of `count` workgroups, folded into two dimensions where the device's limit asks for it. Kernels
 * number their group `group_id.x + group_id.y * num_workgroups.x` and return where that is `>= count`.
 */
export function grid(count: number, device: DeviceDescription): [number, number, number] {
  const limit = device.maxWorkgroupsPerDimension;
  if (count <= limit) return [Math.max(1, count), 1, 1];
  const y = Math.ceil(count / limit);
  return [Math.ceil(count / y), y, 1];
}
