/**
 * Rotary position embedding (Su et al., arXiv 2104.09864).
 *
 * @module
 */
import source from "../../../kernels/rope.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { Tensor } from "../graph.ts";
import { ensure, grid, type Op } from "../op.ts";

/** Attributes of {@linkcode ropeOp}. */
export interface RopeAttributes {
  readonly heads: number;
  readonly headDim: number;
  /** Columns of a head that are rotated, its first; even. */
  readonly rotated: number;
  /** Rotate by minus the angle: the gradient of the rotation. */
  readonly inverse: boolean;
}

/** Rotates the pairs (i, i + rotated/2) of every head by the angle of the row's position. */
const ropeOp: Op<RopeAttributes> = {
  name: "rope",
  infer(inputs, { heads, headDim, rotated }) {
    const [x, positions, table] = inputs as [Tensor, Tensor, Tensor];
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
    return [{ shape: x.shape, dtype: "f32" }];
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
    const { heads, headDim, rotated, inverse } = attributes;
    const [x, , table] = inputs as [Tensor, Tensor, Tensor];
    const rows = x.dim(0);
    const vector = rotated % 8 === 0 && headDim % 4 === 0 ? 4 : 1;
    const half = rotated / 2 / vector;
    const threads = device.family === "subgroup8" ? 8 : 64;
    dispatch({
      kernel: rotated === headDim ? `rope ${headDim}` : `rope ${rotated} of ${headDim}`,
      wgsl: expandTemplate("rope", source, {
        THREADS: threads,
        HALF: half,
        REST: (headDim - rotated) / vector,
        VECTOR: vector,
      }),
      tensors: [...inputs, outputs[0]!],
      size: [rows, heads * half, table.dim(0), { f32: inverse ? -1 : 1 }, { f32: NaN }],
      groups: grid(rows, device),
      flops: 3 * rows * heads * rotated,
      // Every head reads the angles of its position, every thread the position.
      traffic: 4 * rows * (heads * (2 * headDim + rotated) + threads),
    });
  },
};

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
