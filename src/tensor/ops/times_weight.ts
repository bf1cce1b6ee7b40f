/**
 * The elementwise product with a frozen weight in its storage type.
 *
 * @module
 */
import source from "../../../kernels/norms/times_weight.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import { elementCount, type Tensor } from "../graph.ts";
import { ensure, grid, type Op, type Window } from "../op.ts";
import { bytesOf, gcd, isWeight, padded, STORAGES, weightIncludes } from "../weight_storage.ts";
import { windows } from "../windows.ts";

/** x * w, with w in any storage of weights. It gets no gradient. */
const timesWeightOp: Op<null> = {
  name: "timesWeight",
  infer(inputs) {
    const [x, w] = inputs as [Tensor, Tensor];
    ensure(x.dtype === "f32", "timesWeight", inputs, "the first operand must be f32");
    ensure(isWeight(w), "timesWeight", inputs, "the weight must hold numbers");
    ensure(String(x.shape) === String(w.shape), "timesWeight", inputs, "both shapes must be equal");
    return [{ shape: x.shape, dtype: "f32" }];
  },
  gradient: ({ inputs, outputGradients }) => [timesWeight(outputGradients[0]!, inputs[1]!), undefined],
  lower({ inputs, outputs, device, dispatch }) {
    const [x, w] = inputs as [Tensor, Tensor];
    const elements = elementCount(x.shape);
    // Of so many blocks every part begins where a binding may.
    const { blockValues, blockBytes } = STORAGES[w.dtype];
    const multiple = blockValues * device.offsetAlignment / gcd(blockBytes, device.offsetAlignment);
    for (const { first, count } of windows(x, device, { unitElements: 1, multiple })) {
      const part = (t: Tensor): Tensor | Window =>
        count === elements ? t : {
          tensor: t,
          byteOffset: bytesOf(t.dtype, first),
          byteLength: padded(bytesOf(t.dtype, count)),
        };
      const groups = Math.ceil(count / 256);
      dispatch({
        kernel: `timesWeight ${w.dtype}`,
        wgsl: expandTemplate("times_weight", source, { WEIGHT: w.dtype }, weightIncludes(w)),
        tensors: [part(x), part(w), part(outputs[0]!)],
        size: [count, groups],
        groups: grid(groups, device),
        flops: count,
      });
    }
  },
};

/**
 * x * w, elementwise.
 *
 * @param x f32, any shape
 * @param w A frozen weight of the same shape; it gets no gradient
 * @throws {ShapeError} if the shapes differ
 */
export function timesWeight(x: Tensor, w: Tensor): Tensor {
  return x.graph.add(timesWeightOp, [x, w], null)[0]!;
}
