/**
 * The gated SiLU activation of Llama's MLP (SwiGLU without its matrix products; Shazeer, arXiv 2002.05202).
 *
 * @module
 */
import forward from "../../../kernels/gated_silu.wgsl" with { type: "text" };
import backward from "../../../kernels/gated_silu_backward.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import { elementCount, type Tensor } from "../graph.ts";
import { ensure, grid, type LoweringContext, type Op } from "../op.ts";

/** silu(gate) * up, elementwise. */
const gatedSiluOp: Op<null> = {
  name: "gatedSilu",
  infer(inputs) {
    const [gate] = inputs;
    for (const t of inputs) {
      ensure(String(t.shape) === String(gate!.shape), "gatedSilu", inputs, "all shapes must be equal");
      ensure(t.dtype === "f32", "gatedSilu", inputs, "all operands must be f32");
    }
    return [{ shape: gate!.shape, dtype: "f32" }];
  },
  gradient: ({ inputs, outputGradients }) =>
    inputs[0]!.graph.add(gatedSiluBackwardOp, [...inputs, outputGradients[0]!], null),
  lower: (context) => launch(context, "gated_silu", forward, 6),
};

/** Both gradients of {@linkcode gatedSiluOp} from gate, up and the gradient of the result. */
export const gatedSiluBackwardOp: Op<null> = {
  name: "gatedSiluBackward",
  infer: (inputs) => [gatedSiluOp.infer(inputs, null)[0]!, gatedSiluOp.infer(inputs, null)[0]!],
  lower: (context) => launch(context, "gated_silu_backward", backward, 12),
};

function launch(context: LoweringContext<null>, name: string, source: string, flopsEach: number): void {
  const { inputs, outputs, device } = context;
  const vectors = Math.ceil(elementCount(inputs[0]!.shape) / 4);
  const groups = Math.ceil(vectors / 256);
  // Where gate and up are one tensor it is bound twice, which is allowed: both only read.
  context.dispatch({
    kernel: name === "gated_silu" ? "gatedSilu" : "gatedSiluBackward",
    wgsl: expandTemplate(name, source, {}),
    tensors: [...inputs, ...outputs],
    size: [vectors, groups],
    groups: grid(groups, device),
    flops: flopsEach * 4 * vectors,
  });
}

/**
 * silu(gate) * up, elementwise, with silu(g) = g / (1 + exp(-g)).
 *
 * @param gate f32, any shape
 * @param up f32, the same shape
 * @throws {ShapeError} if the shapes differ
 */
export function gatedSilu(gate: Tensor, up: Tensor): Tensor {
  return gate.graph.add(gatedSiluOp, [gate, up], null)[0]!;
}
