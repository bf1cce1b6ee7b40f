/**
 * Sums of a matrix over its rows or its columns.
 *
 * @module
 */
import source from "../../../kernels/sum_axis.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { Tensor } from "../graph.ts";
import { ensure, grid, type Op } from "../op.ts";
import { pointwise } from "./pointwise.ts";
import { fillConstant } from "./fill.ts";

/** Which axis is summed away: `rows` gives [N], `columns` gives [T, 1]. */
export type Axis = "rows" | "columns";

/** The op behind {@linkcode sumRows} and {@linkcode sumColumns}. */
export const sumAxisOp: Op<{ readonly axis: Axis }> = {
  name: "sumAxis",
  infer(inputs, { axis }) {
    const [x] = inputs;
    ensure(x!.shape.length === 2 && x!.dtype === "f32", "sumAxis", inputs, "expected f32 [T, N]");
    return [{ shape: axis === "rows" ? [x!.dim(1)] : [x!.dim(0), 1], dtype: "f32" }];
  },
  gradient: ({ inputs, outputGradients }) => {
    const [x] = inputs;
    const zero = fillConstant(x!.graph, x!.shape, 0);
    return [pointwise([zero, outputGradients[0]!], (z, g) => z!.add(g!))];
  },
  lower({ inputs, outputs, attributes: { axis }, adapter, dispatch }) {
    const [rows, columns] = [inputs[0]!.dim(0), inputs[0]!.dim(1)];
    const groups = axis === "rows" ? Math.ceil(columns / 64) : rows;
    dispatch({
      kernel: `sum ${axis}`,
      wgsl: expandTemplate("sum_axis", source, { AXIS: axis }),
      tensors: [inputs[0]!, outputs[0]!],
      size: [rows, columns, groups],
      groups: grid(groups, adapter),
      flops: rows * columns,
    });
  },
};

/** sum_t x[t, n] of x [T, N]: f32 [N]. */
export function sumRows(x: Tensor): Tensor {
  return x.graph.add(sumAxisOp, [x], { axis: "rows" })[0]!;
}

/** sum_n x[t, n] of x [T, N]: f32 [T, 1]. */
export function sumColumns(x: Tensor): Tensor {
  return x.graph.add(sumAxisOp, [x], { axis: "columns" })[0]!;
}
