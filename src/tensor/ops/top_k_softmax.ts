/**
 * The gates of a mixture of experts: the softmax over the largest elements of each row.
 *
 * @module
 */
import source from "../../../kernels/sampling/top_k_softmax.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { Tensor } from "../graph.ts";
import { ensure, grid, type Op, refuse } from "../op.ts";
import { pointwise } from "./pointwise.ts";
import { sumColumns } from "./pointwise.ts";

/** Each element of a row is compared with all, and Mesa's software driver ends all loops of a thread after 65,535 turns. */
const MOST_COMPARED = 250;

/** y[n, :] = softmax over the k largest of x[n, :], 0 elsewhere; dx = y (dy - sum(y dy)), so what is not chosen learns nothing. */
const topKSoftmaxOp: Op<{ readonly k: number }> = {
  name: "topKSoftmax",
  infer(inputs, { k }) {
    const [x] = inputs as [Tensor];
    ensure(x.shape.length === 2 && x.dtype === "f32", "topKSoftmax", inputs, "expected f32 [N, E]");
    ensure(
      Number.isInteger(k) && k >= 1 && k <= x.dim(1),
      "topKSoftmax",
      inputs,
      `cannot choose ${k} of ${x.dim(1)}`,
    );
    return [{ shape: x.shape, dtype: "f32" }];
  },
  gradient({ outputs, outputGradients }) {
    const [y, dy] = [outputs[0]!, outputGradients[0]!];
    const mean = sumColumns(pointwise([y, dy], (y, dy) => y!.mul(dy!))); // [N, 1]
    return [pointwise([y, dy, mean], (y, dy, mean) => y!.mul(dy!.sub(mean!)))];
  },
  lower({ inputs, outputs, attributes: { k }, device, dispatch }) {
    const [rows, width] = [inputs[0]!.dim(0), inputs[0]!.dim(1)];
    const groups = Math.ceil(rows / 64);
    if (device.family === "subgroup8" && width > MOST_COMPARED) {
      refuse("topKSoftmax", inputs, `a software device chooses from at most ${MOST_COMPARED}`);
    }
    dispatch({
      kernel: "topKSoftmax",
      wgsl: expandTemplate("top_k_softmax", source, {}),
      tensors: [inputs[0]!, outputs[0]!],
      size: [rows, groups, width, k],
      groups: grid(groups, device),
      flops: rows * width * (width + 3),
    });
  },
};

/**
 * The softmax over the `k` largest elements of each row, 0 elsewhere; of equal elements the first counts as the larger. It is the
 * softmax over all of them with the chosen ones divided by their sum.
 *
 * @param x f32 [N, E]
 * @throws {ShapeError} if there are not `k` elements in a row
 */
export function topKSoftmax(x: Tensor, k: number): Tensor {
  return x.graph.add(topKSoftmaxOp, [x], { k })[0]!;
}
