/**
 * Leaving elements out: zeros where a flag is not set, whatever stood there.
 *
 * @module
 */
import source from "../../../kernels/rows/mask_rows.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { Tensor } from "../graph.ts";
import { ensure, grid, type Op } from "../op.ts";

/** y[t] = x[t] where the bit of flags[t] is set, else 0: chosen, not multiplied, so what is left out may be NaN. */
const maskRowsOp: Op<{ readonly bit: number }> = {
  name: "maskRows",
  infer(inputs, { bit }) {
    const [x, flags] = inputs as [Tensor, Tensor];
    ensure(x.dtype === "f32" && x.shape.length === 1, "maskRows", inputs, "expected f32 [T]");
    ensure(
      flags.dtype === "i32" && String(flags.shape) === String(x.shape),
      "maskRows",
      inputs,
      "flags must be i32 [T]",
    );
    ensure(Number.isInteger(bit) && bit >= 0 && bit < 32, "maskRows", inputs, `there is no bit ${bit}`);
    return [{ shape: x.shape, dtype: "f32" }];
  },
  gradient: ({ inputs, attributes, outputGradients }) => [
    maskRows(outputGradients[0]!, inputs[1]!, attributes.bit),
  ],
  lower({ inputs, outputs, attributes: { bit }, device, dispatch }) {
    const elements = outputs[0]!.dim(0);
    const groups = Math.ceil(elements / 64);
    dispatch({
      kernel: "maskRows",
      wgsl: expandTemplate("mask_rows", source, { BIT: bit }),
      tensors: [...inputs, outputs[0]!],
      size: [elements, groups],
      groups: grid(groups, device),
    });
  },
};

/**
 * x where a bit of the flags is set, 0 elsewhere.
 *
 * @param x f32 [T]
 * @param flags i32 [T]
 */
export function maskRows(x: Tensor, flags: Tensor, bit = 0): Tensor {
  return x.graph.add(maskRowsOp, [x, flags], { bit })[0]!;
}
