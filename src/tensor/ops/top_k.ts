/**
 * The largest elements of each row.
 *
 * @module
 */
import orderedKey from "../../../kernels/include/ordered_key.wgsl" with { type: "text" };
import source from "../../../kernels/sampling/top_k.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { Tensor } from "../graph.ts";
import { ensure, grid, type Op } from "../op.ts";

/** ids and values of the k largest elements, largest first; see {@linkcode topK}. */
const topKOp: Op<{ readonly k: number }> = {
  name: "topK",
  infer(inputs, { k }) {
    const [x] = inputs as [Tensor];
    ensure(x.shape.length === 2 && x.dtype === "f32", "topK", inputs, "expected f32 [R, V]");
    ensure(
      k >= 1 && k <= 256 && k <= x.dim(1),
      "topK",
      inputs,
      `cannot take ${k} of ${x.dim(1)} (at most 256)`,
    );
    ensure(x.dim(1) <= 2 ** 24, "topK", inputs, "rows have at most 2^24 elements");
    return [{ shape: [x.dim(0), k], dtype: "u32" }, { shape: [x.dim(0), k], dtype: "f32" }];
  },
  lower({ inputs, outputs, attributes: { k }, device, dispatch }) {
    const [rows, width] = inputs[0]!.shape as [number, number];
    const SUBGROUP = device.family === "subgroup8";
    const [LANES, UNROLL] = SUBGROUP ? [8, 8] : [256, 2];
    dispatch({
      kernel: "topK",
      wgsl: expandTemplate("top_k", source, { K: k, SUBGROUP, LANES, UNROLL }, { ordered_key: orderedKey }),
      tensors: [inputs[0]!, ...outputs],
      size: [rows, width],
      groups: grid(rows, device),
      flops: 160 * rows * width,
    });
  },
};

/**
 * The `k` largest elements of each row, largest first, of equal ones the lower id first.
 *
 * @param x f32 [R, V]
 * @param k at most 256
 * @returns ids u32 [R, k] and values f32 [R, k]
 */
export function topK(x: Tensor, k: number): { readonly ids: Tensor; readonly values: Tensor } {
  const [ids, values] = x.graph.add(topKOp, [x], { k });
  return { ids: ids!, values: values! };
}
