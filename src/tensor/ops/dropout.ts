/**
 * Dropout with counter-based random numbers: the mask is a function of (seed, step, site, element), so nothing is stored, the
 * backward pass makes the same mask again, and a resumed run draws the same numbers.
 *
 * @module
 */
import philox from "../../../kernels/include/philox.wgsl" with { type: "text" };
import kernel from "../../../kernels/random.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import { elementCount, type StepScalar, type Tensor } from "../graph.ts";
import { ensure, grid, type Op } from "../op.ts";

/** Attributes of {@linkcode dropoutOp}. */
export interface DropoutAttributes {
  /** Share of elements set to zero; the others are divided by 1 - rate. */
  readonly rate: number;
  /** Tells places of use apart: each draws its own numbers. */
  readonly site: number;
  /** Step scalar holding an integer that differs at every micro-batch. */
  readonly key: StepScalar;
}

/** y = x * keep / (1 - rate), keep drawn by Philox 4x32-10 (Salmon et al., SC 2011). */
const dropoutOp: Op<DropoutAttributes> = {
  name: "dropout",
  infer(inputs, { rate }) {
    ensure(rate >= 0 && rate < 1, "dropout", inputs, `rate ${rate} is not in [0, 1)`);
    return [{ shape: inputs[0]!.shape, dtype: "f32" }];
  },
  gradient: ({ attributes, outputGradients }) => [dropout(outputGradients[0]!, attributes)],
  lower({ inputs, outputs, attributes: { rate, site, key }, device, dispatch }) {
    const vectors = Math.ceil(elementCount(outputs[0]!.shape) / 4);
    const groups = Math.ceil(vectors / 64);
    dispatch({
      kernel: "dropout",
      wgsl: expandTemplate("random", kernel, { DRAW: "dropout" }, { philox }),
      tensors: [inputs[0]!, outputs[0]!],
      // The threshold keeps an element when a uniform 32-bit number is at least rate * 2^32.
      size: [vectors, groups, site, key, Math.min(0xffff_ffff, Math.round(rate * 2 ** 32)), {
        f32: 1 / (1 - rate),
      }],
      groups: grid(groups, device),
    });
  },
};

/** Applies dropout; with rate 0 the input is returned. */
export function dropout(x: Tensor, attributes: DropoutAttributes): Tensor {
  return attributes.rate === 0 ? x : x.graph.add(dropoutOp, [x], attributes)[0]!;
}
