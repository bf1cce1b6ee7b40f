/**
 * Sums of rows by index, differentiable because the way back is given too.
 *
 * @module
 */
import source from "../../../kernels/rows/gather_sum.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import { elementCount, type Tensor } from "../graph.ts";
import { ensure, grid, type Op } from "../op.ts";

/** out[n, :] = sum_j x[index[n, j], :]; the gradient of x is the same sum of dy by the inverse. */
const gatherSumOp: Op<null> = {
  name: "gatherSum",
  infer(inputs) {
    const [x, index, inverse] = inputs as [Tensor, Tensor, Tensor];
    ensure(x.shape.length === 2 && x.dtype === "f32", "gatherSum", inputs, "x must be f32 [R, W]");
    ensure(
      [index, inverse].every((t) => t.dtype === "i32" && t.shape.length === 2),
      "gatherSum",
      inputs,
      "index and inverse must be i32 of two dimensions",
    );
    ensure(inverse.dim(0) === x.dim(0), "gatherSum", inputs, "the inverse must have a row for each row of x");
    return [{ shape: [index.dim(0), x.dim(1)], dtype: "f32" }];
  },
  gradient: ({ inputs, outputGradients }) => [
    gatherSum(outputGradients[0]!, { index: inputs[2]!, inverse: inputs[1]! }),
    undefined,
    undefined,
  ],
  lower({ inputs, outputs, device, dispatch }) {
    const [x, index] = inputs as [Tensor, Tensor];
    const vector = x.dim(1) % 4 === 0 ? 4 : 1;
    const units = elementCount(outputs[0]!.shape) / vector;
    const groups = Math.ceil(units / 256);
    dispatch({
      kernel: "gatherSum",
      wgsl: expandTemplate("gather_sum", source, { VECTOR: vector }),
      tensors: [x, index, outputs[0]!],
      size: [units, groups, x.dim(1) / vector, x.dim(0), index.dim(1)],
      groups: grid(groups, device),
      flops: elementCount(outputs[0]!.shape) * index.dim(1),
    });
  },
};

/** Which rows are summed: row n of the result is that of rows `index[n, :]`. An index of no row adds nothing. */
export interface RowIndex {
  /** i32 [N, EACH] */
  readonly index: Tensor;
  /** i32 [R, ...]: the rows of the result in which row r takes part, as often as it does. */
  readonly inverse: Tensor;
}

/**
 * Sums of rows by index.
 *
 * @param x f32 [R, W]
 * @returns f32 [N, W]
 * @throws {ShapeError} if shapes or types are others
 */
export function gatherSum(x: Tensor, { index, inverse }: RowIndex): Tensor {
  return x.graph.add(gatherSumOp, [x, index, inverse], null)[0]!;
}
