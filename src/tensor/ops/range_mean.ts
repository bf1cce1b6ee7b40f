/**
 * Means of ranges of rows: the pooled prompt of each sample of a packed stream.
 *
 * @module
 */
import source from "../../../kernels/features/range_mean.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { Tensor } from "../graph.ts";
import { ensure, grid, type Op } from "../op.ts";

/** out[s, :] = mean of x[t, :] over start[s] <= t < end[s]. It has no gradient: what is pooled here is frozen. */
const rangeMeanOp: Op<null> = {
  name: "rangeMean",
  infer(inputs) {
    const [x, start, end] = inputs as [Tensor, Tensor, Tensor];
    ensure(x.shape.length === 2 && x.dtype === "f32", "rangeMean", inputs, "expected f32 [T, H]");
    ensure(
      [start, end].every((t) => t.dtype === "i32" && t.shape.length === 1 && t.dim(0) === start.dim(0)),
      "rangeMean",
      inputs,
      "start and end must be i32 [S]",
    );
    return [{ shape: [start.dim(0), x.dim(1)], dtype: "f32" }];
  },
  lower({ inputs, outputs, device, dispatch }) {
    const [x, start, end] = inputs as [Tensor, Tensor, Tensor];
    const vector = x.dim(1) % 4 === 0 ? 4 : 1;
    const THREADS = device.family === "subgroup8" ? 8 : 64;
    const total = outputs[0]!.dim(0) * outputs[0]!.dim(1) / vector;
    dispatch({
      kernel: "rangeMean",
      wgsl: expandTemplate("range_mean", source, { THREADS, VECTOR: vector }),
      tensors: [x, start, end, outputs[0]!],
      size: [total, x.dim(1) / vector],
      groups: grid(Math.ceil(total / THREADS), device),
    });
  },
};

/**
 * The mean of each range of rows; zeros for an empty range.
 *
 * @param x f32 [T, H]
 * @param start First row of each range, i32 [S]
 * @param end One past the last row, at most T, i32 [S]
 * @returns f32 [S, H]
 */
export function rangeMean(x: Tensor, start: Tensor, end: Tensor): Tensor {
  return x.graph.add(rangeMeanOp, [x, start, end], null)[0]!;
}
