/**
 * The global gradient norm, and whether the gradients can be used at all, in one sweep.
 *
 * @module
 */
import clippingSource from "../../../kernels/clipping_factor.wgsl" with { type: "text" };
import source from "../../../kernels/gradient_norm.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import { elementCount, type Tensor } from "../graph.ts";
import { ensure, grid, type Op } from "../op.ts";
import { windows } from "../windows.ts";

/** Elements that one workgroup reduces to one; stands in the kernel too. */
const CHUNK = 16384;

/** (norm, flag), f32 [2], of a tensor of any shape; see {@linkcode gradientNorm}. */
const gradientNormOp: Op<null> = {
  name: "gradientNorm",
  infer(inputs) {
    ensure(inputs[0]!.dtype === "f32", "gradientNorm", inputs, "the operand must be f32");
    return [{ shape: [2], dtype: "f32" }];
  },
  lower({ inputs, outputs, device, scratch, dispatch }) {
    let from = inputs[0]!;
    let elements = elementCount(from.shape);
    // Level by level, each 16384 times shorter, until one pair is left.
    for (let first = true;; first = false) {
      const chunks = Math.ceil(elements / CHUNK);
      const last = chunks === 1;
      const to = last ? outputs[0]! : scratch([chunks, 2], "f32");
      const wgsl = expandTemplate("gradient_norm", source, { FIRST: first, LAST: last });
      for (const part of windows(from, device, { unitElements: first ? 1 : 2, multiple: CHUNK })) {
        const groups = Math.ceil(part.count / CHUNK);
        dispatch({
          kernel: `gradientNorm level ${first ? 1 : 2}`,
          wgsl,
          tensors: [part.binding, to],
          size: [part.count, groups, part.first / CHUNK],
          groups: grid(groups, device),
          flops: 2 * part.count,
        });
      }
      if (last) return;
      from = to;
      elements = chunks;
    }
  },
};

/**
 * The Euclidean norm of all elements of a tensor, and a flag that tells whether any of them is NaN or infinite.
 *
 * Sums go pairwise: the relative error is a few units in the last place whatever the count. The order depends on the count
 * alone, not on how the device makes us cut the tensor.
 *
 * @param x f32, any shape
 * @returns f32 [2]: the norm (NaN or infinite if the flag is set; infinite too if the squares overflow), then 1 or 0
 */
export function gradientNorm(x: Tensor): Tensor {
  return x.graph.add(gradientNormOp, [x], null)[0]!;
}

/** The op behind {@linkcode clippingFactor}. */
const clippingFactorOp: Op<{ readonly clip: number | undefined }> = {
  name: "clippingFactor",
  infer([norm]) {
    ensure(
      norm!.dtype === "f32" && norm!.dim(0) === 2,
      "clippingFactor",
      [norm!],
      "the norm must be f32 [2]",
    );
    return [{ shape: [1], dtype: "f32" }];
  },
  lower({ inputs, outputs, attributes: { clip }, dispatch }) {
    dispatch({
      kernel: "clippingFactor",
      wgsl: expandTemplate("clipping_factor", clippingSource, { CLIP: clip !== undefined }),
      tensors: [inputs[0]!, outputs[0]!],
      size: [{ f32: clip ?? 0 }],
      groups: [1, 1, 1],
    });
  },
};

/**
 * What AdamW multiplies the gradients by when it clips them, f32 [1]: min(1, clip / (norm + 1e-6)), or 1 without `clip`; 0 where the
 * norm's flag is set and the optimiser writes nothing.
 *
 * @param norm From {@linkcode gradientNorm}
 */
export function clippingFactor(norm: Tensor, clip: number | undefined): Tensor {
  return norm.graph.add(clippingFactorOp, [norm], { clip })[0]!;
}
