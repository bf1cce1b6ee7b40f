/**
 * Adding a vector to every row: a linear layer's bias.
 *
 * @module
 */
import source from "../../../kernels/add_row.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import { elementCount, type Tensor } from "../graph.ts";
import { ensure, grid, type Op } from "../op.ts";
import { byteLength, isWeight, weightIncludes } from "../weight_storage.ts";
import { sumRows } from "./pointwise.ts";

/** y[t, :] = x[t, :] + row, with the row in any storage of weights; the gradient of the row is the sum of dy over the rows. */
export const addRowOp: Op<null> = {
  name: "addRow",
  infer(inputs) {
    const [x, row] = inputs;
    ensure(x!.shape.length === 2 && row!.shape.length === 1, "addRow", inputs, "expected [T, N] and [N]");
    ensure(x!.dim(1) === row!.dim(0), "addRow", inputs, "the row's length must be the width");
    ensure(isWeight(row!), "addRow", inputs, "the row must be a weight");
    return [{ shape: x!.shape, dtype: "f32" }];
  },
  gradient: ({ outputGradients: [dy], needed }) => [dy, needed[1] ? sumRows(dy!) : undefined],
  lower({ inputs, outputs, device, dispatch }) {
    const [x, row] = inputs as [Tensor, Tensor];
    const elements = elementCount(x.shape);
    const width = x.dim(1);
    const vector = width % 4 === 0 ? 4 : 1;
    const groups = Math.ceil(elements / vector / 256);
    dispatch({
      kernel: "addRow",
      wgsl: expandTemplate("add_row", source, { WEIGHT: row.dtype, VECTOR: vector }, weightIncludes(row)),
      tensors: [x, row, outputs[0]!],
      size: [elements / vector, groups, width / vector],
      groups: grid(groups, device),
      flops: elements,
      // Every row reads what is added to it.
      traffic: 8 * elements + x.dim(0) * byteLength(row),
    });
  },
};

/** Adds `row` [N] to every row of `x` [T, N]. */
export function addRow(x: Tensor, row: Tensor): Tensor {
  return x.graph.add(addRowOp, [x, row], null)[0]!;
}
