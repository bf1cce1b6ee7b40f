/**
 * Rotary position embedding (Su et al., arXiv 2104.09864).
 *
 * @module
 */
import source from "../../../kernels/rope.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { Node, Tensor } from "../graph.ts";
import { ensure, grid, type NodeOf, type Op, rootOf } from "../op.ts";

/** Attributes of {@linkcode ropeOp}. */
export interface RopeAttributes {
  readonly heads: number;
  /** Of a second tensor, see {@linkcode bothRopes}; as many as the first has when absent. */
  readonly otherHeads?: number;
  readonly headDim: number;
  /** Columns of a head that are rotated, its first; even. */
  readonly rotated: number;
  /** Rotate by minus the angle: the gradient of the rotation. */
  readonly inverse: boolean;
}

/** Rows that a workgroup of a software device makes: one alone costs as much to start as to make. */
const ROWS_TOGETHER = 4;

/**
 * Rotates the pairs (i, i + rotated/2) of every head by the angle of the row's position. Inputs: x, positions, table, and a second x where
 * there is one; then there are two outputs.
 */
export const ropeOp: Op<RopeAttributes> = {
  name: "rope",
  infer(inputs, { heads, otherHeads = heads, headDim, rotated }) {
    const [x, positions, table, other] = inputs as [Tensor, Tensor, Tensor, Tensor | undefined];
    ensure(
      rotated % 2 === 0 && rotated > 0 && rotated <= headDim,
      "rope",
      inputs,
      `of a head of ${headDim} columns an even number can be rotated, not ${rotated}`,
    );
    ensure(
      x.shape.length === 2 && x.dim(1) === heads * headDim && x.dtype === "f32",
      "rope",
      inputs,
      `x must be f32 [T, ${heads} * ${headDim}]`,
    );
    ensure(
      positions.shape.length === 1 && positions.dim(0) === x.dim(0) && positions.dtype === "i32",
      "rope",
      inputs,
      "positions must be i32, one for each row",
    );
    ensure(
      table.shape.length === 2 && table.dim(1) === rotated && table.dtype === "f32",
      "rope",
      inputs,
      `the table must be f32 [P, ${rotated}]`,
    );
    const outputs = [{ shape: x.shape, dtype: "f32" as const }];
    if (!other) return outputs;
    ensure(
      String(other.shape) === String([x.dim(0), otherHeads * headDim]) && other.dtype === "f32",
      "rope",
      inputs,
      `the second x must be f32 [T, ${otherHeads} * ${headDim}]`,
    );
    return [...outputs, { shape: other.shape, dtype: "f32" }];
  },
  gradient: ({ inputs, attributes, outputGradients }) => [
    outputGradients[0]!.graph.add(ropeOp, [outputGradients[0]!, inputs[1]!, inputs[2]!], {
      ...attributes,
      inverse: !attributes.inverse,
    })[0],
    undefined,
    undefined,
  ],
  lower({ inputs, outputs, attributes, device, dispatch }) {
    const { heads, otherHeads = heads, headDim, rotated, inverse } = attributes;
    const [x, positions, table, other] = inputs as [Tensor, Tensor, Tensor, Tensor | undefined];
    const rows = x.dim(0);
    const vector = rotated % 8 === 0 && headDim % 4 === 0 ? 4 : 1;
    const half = rotated / 2 / vector;
    const software = device.family === "subgroup8";
    const [threads, rowsTogether] = software ? [8, ROWS_TOGETHER] : [64, 1];
    dispatch({
      kernel: `${other ? "ropes" : "rope"} ${rotated === headDim ? headDim : `${rotated} of ${headDim}`}`,
      wgsl: expandTemplate("rope", source, {
        TENSORS: outputs.length,
        THREADS: threads,
        ROWS: rowsTogether,
        HALF: half,
        REST: (headDim - rotated) / vector,
        VECTOR: vector,
      }),
      tensors: [positions, table, x, outputs[0]!, ...(other ? [other, outputs[1]!] : [])],
      size: [
        ...[rows, table.dim(0), { f32: inverse ? -1 : 1 }, { f32: NaN }],
        ...[heads * half, otherHeads * half],
      ],
      groups: grid(Math.ceil(rows / rowsTogether), device),
      flops: 3 * rows * (heads + (other ? otherHeads : 0)) * rotated,
      // Every head reads the angles of its position, every thread the position.
      traffic: 4 * rows * ((heads + (other ? otherHeads : 0)) * (2 * headDim + rotated) + threads),
    });
  },
};

/** One node for two that turn by the same angles, queries and keys; undefined where they do not. */
export function bothRopes(first: NodeOf<RopeAttributes>, second: NodeOf<RopeAttributes>): Node | undefined {
  const [a, b] = [first.attributes, second.attributes];
  const same = a.headDim === b.headDim && a.rotated === b.rotated && a.inverse === b.inverse &&
    [1, 2].every((i) => first.inputs[i] === second.inputs[i]);
  if (!same || first.inputs.length > 3 || second.inputs.length > 3) return undefined;
  // One range of memory may not be bound twice where another is written.
  if (rootOf(first.inputs[0]!).root === rootOf(second.inputs[0]!).root) return undefined;
  return {
    ...second,
    inputs: [...first.inputs, second.inputs[0]!],
    attributes: { ...a, otherHeads: b.heads },
    outputs: [first.outputs[0]!, second.outputs[0]!],
  };
}

/** One of the tensors that a node turns. */
export interface Turned {
  readonly x: Tensor;
  readonly out: Tensor;
  /** For it alone. */
  readonly rope: RopeAttributes;
}

/** What a node turns: one tensor, or two. */
export function turnedBy({ inputs, outputs, attributes }: NodeOf<RopeAttributes>): Turned[] {
  const { heads, otherHeads = heads, ...others } = attributes;
  return outputs.map((out, i) => ({
    ...{ x: inputs[i === 0 ? 0 : 3]!, out },
    rope: { ...others, heads: i === 0 ? heads : otherHeads },
  }));
}

/** A node that turns only some of what another one does. */
export function ropeOf(node: NodeOf<RopeAttributes>, turned: readonly Turned[]): Node {
  if (turned.length === node.outputs.length) return node;
  const [{ x, out, rope }] = turned as [Turned];
  return { ...node, inputs: [x, node.inputs[1]!, node.inputs[2]!], attributes: rope, outputs: [out] };
}

/**
 * Rotary position embedding. Pairs are (i, i + rotated/2) within a head, the order of Hugging Face's weights; the columns of a head from
 * `rotated` on pass through.
 *
 * @param x f32 [T, heads * headDim]: queries or keys
 * @param positions i32 [T]; a position outside the table gives a row of NaN
 * @param table f32 [P, rotated]: for each position rotated/2 cosines, then rotated/2 sines. Made on the host in f64, because
 *   drivers compute sines of large angles badly
 * @param rotated All of a head by default
 * @throws {ShapeError} if shapes or types are others, or `rotated` is odd or more than a head has
 */
export function rope(
  x: Tensor,
  positions: Tensor,
  table: Tensor,
  heads: number,
  headDim: number,
  rotated = headDim,
): Tensor {
  return x.graph.add(ropeOp, [x, positions, table], { heads, headDim, rotated, inverse: false })[0]!;
}
