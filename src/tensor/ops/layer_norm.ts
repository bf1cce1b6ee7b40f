/**
 * Layer normalisation of rows (Ba et al., arXiv 1607.06450).
 *
 * @module
 */
import forward from "../../../kernels/norms/layer_norm.wgsl" with { type: "text" };
import backward from "../../../kernels/norms/layer_norm_backward.wgsl" with { type: "text" };
import type { Tensor } from "../graph.ts";
import type { Op } from "../op.ts";
import { addRow } from "./add_row.ts";
import {
  inferNorm,
  lowerNorm,
  normWeightGradient,
  type RmsNormAttributes,
  type RowKernel,
} from "./rms_norm.ts";

const FORWARD: RowKernel = {
  kernel: "layerNorm",
  name: "layer_norm",
  source: forward,
  sum: "f32",
  flopsEach: 6,
  reads: { x: 3, weight: 1, dy: 0 },
};
const BACKWARD: RowKernel = {
  kernel: "layerNormBackward",
  name: "layer_norm_backward",
  source: backward,
  sum: "vec3<f32>",
  flopsEach: 13,
  reads: { x: 3, weight: 2, dy: 2 },
};

/** The norm without its bias. */
const layerNormOp: Op<RmsNormAttributes> = {
  name: "layerNorm",
  infer: (inputs) => inferNorm("layerNorm", inputs),
  gradient({ inputs, attributes, outputGradients, needed }) {
    const [x, weight] = inputs as [Tensor, Tensor];
    const dy = outputGradients[0]!;
    const [dx, scale, mean] = x.graph.add(layerNormBackwardOp, [x, weight, dy], attributes);
    return [dx, needed[1] ? normWeightGradient(x, dy, scale!, mean!) : undefined];
  },
  lower: (context) => lowerNorm(context, FORWARD),
};

/** dx, and of each row the scale 1 / sqrt(variance + epsilon) and the mean, both [T], from x, weight and dy. */
const layerNormBackwardOp: Op<RmsNormAttributes> = {
  name: "layerNormBackward",
  infer: ([x]) => [x!.shape, [x!.dim(0)], [x!.dim(0)]].map((shape) => ({ shape, dtype: "f32" })),
  lower: (context) => lowerNorm(context, BACKWARD),
};

/**
 * Takes its mean from every row, divides it by its standard deviation, multiplies it by a weight and adds a bias. All arithmetic is in
 * f32.
 *
 * @param x f32 [T, H]
 * @param weight [H] in any storage of weights; only f32 can be trained
 * @param bias [H] likewise
 * @param epsilon Added to the variance, which divides by H
 * @throws {ShapeError} if shapes or types are others
 */
export function layerNorm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: number): Tensor {
  return addRow(x.graph.add(layerNormOp, [x, weight], { epsilon })[0]!, bias);
}
