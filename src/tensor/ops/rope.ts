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
  /** Width of a head; even. */
  readonly headDim: number;
  /** Rotate by minus the angle: the gradient of the rotation. */
  readonly inverse: boolean;
}

/** Rotates the pairs (i, i + headDim/2) of every head by the angle of the row's position. */
const ropeOp: Op<RopeAttributes> = {
  name: "rope",
  infer(inputs, { heads, headDim }) {
    const [x, positions, table] = inputs as [Tensor, Tensor, Tensor];
    ensure(headDim % 2 === 0, "rope", inputs, `the head width ${headDim} is not even`);
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
      table.shape.length === 2 && table.dim(1) === headDim && table.dtype === "f32",
      "rope",
      inputs,
      `the table must be f32 [P, ${headDim}]`,
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
    const { heads, headDim, inverse } = attributes;
    const [x, , table] = inputs as [Tensor, Tensor, Tensor];
    const rows = x.dim(0);
    const vector = headDim % 8 === 0 ? 4 : 1;
    const half = headDim / 2 / vector;
    dispatch({
      kernel: `rope ${headDim}`,
      wgsl: expandTemplate("rope", source, {
        THREADS: device.family === "subgroup8" ? 8 : 64,
        HALF: half,
        VECTOR: vector,
      }),
      tensors: [...inputs, outputs[0]!],
      size: [rows, heads * half, table.dim(0), { f32: inverse ? -1 : 1 }, { f32: NaN }],
      groups: grid(rows, device),
      flops: 3 * rows * heads * headDim,
    });
  },
};

/**
 * Rotary position embedding. Pairs are (i, i + headDim/2) within a head, the order of Hugging Face's weights.
 *
 * @param x f32 [T, heads * headDim]: queries or keys
 * @param positions i32 [T]; a position outside the table gives a row of NaN
 * @param table f32 [P, headDim]: for each position headDim/2 cosines, then headDim/2 sines. Made on the host in f64, because
 *   drivers compute sines of large angles badly
 * @throws {ShapeError} if shapes or types are others
 */
export function rope(x: Tensor, positions: Tensor, table: Tensor, heads: number, headDim: number): Tensor {
  return x.graph.add(ropeOp, [x, positions, table], { heads, headDim, inverse: false })[0]!;
}
