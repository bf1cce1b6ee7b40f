/**
 * Root mean square normalisation of rows (Zhang and Sennrich, arXiv 1910.07467).
 *
 * @module
 */
import forward from "../../../kernels/norms/rms_norm.wgsl" with { type: "text" };
import backward from "../../../kernels/norms/rms_norm_backward.wgsl" with { type: "text" };
import shortRows from "../../../kernels/norms/rms_norm_subgroup8.wgsl" with { type: "text" };
import rowSum from "../../../kernels/include/row_sum.wgsl" with { type: "text" };
import weightGradient from "../../../kernels/norms/rms_norm_weight.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { Tensor, TensorSpec } from "../graph.ts";
import { ensure, grid, type LoweringContext, type Op } from "../op.ts";
import { byteLength, isWeight, weightIncludes } from "../weight_storage.ts";
import { rowThreads } from "../row_threads.ts";
import { reshape } from "./views.ts";

/** Attributes of the ops in this file. */
export interface RmsNormAttributes {
  /** Added to the mean square; the model's `rms_norm_eps`. */
  readonly epsilon: number;
  /** The rows are multiplied by 1 + weight. Absent otherwise: plugins that use the op are known by its attributes as text. */
  readonly plusOne?: true;
}

/** Rows that level 1 of the weight's gradient sums; stands in the kernel too. */
const BLOCK = 32;

/** y[t, h] = w[h] * x[t, h] / sqrt(mean_h(x[t, h]^2) + epsilon), or with 1 + w[h] for w[h]. */
const rmsNormOp: Op<RmsNormAttributes> = {
  name: "rmsNorm",
  infer: (inputs) => inferNorm("rmsNorm", inputs),
  gradient({ inputs, attributes, outputGradients, needed }) {
    const [x, weight] = inputs as [Tensor, Tensor];
    const dy = outputGradients[0]!;
    const [dx, scale] = x.graph.add(rmsNormBackwardOp, [x, weight, dy], attributes);
    const dw = needed[1] ? normWeightGradient(x, dy, scale!) : undefined;
    return [dx, dw];
  },
  lower: (context) => lowerNorm(context, FORWARD),
};

/** The shape rule of a norm of rows. */
export function inferNorm(name: string, inputs: readonly Tensor[]): TensorSpec[] {
  const [x, weight] = inputs as [Tensor, Tensor];
  ensure(x.shape.length === 2 && x.dtype === "f32", name, inputs, "x must be f32 [T, H]");
  ensure(
    weight.shape.length === 1 && weight.dim(0) === x.dim(1) && isWeight(weight),
    name,
    inputs,
    `the second operand must be a weight [${x.dim(1)}]`,
  );
  return [{ shape: x.shape, dtype: "f32" }];
}

/**
 * dx and the scale of each row, 1 / sqrt(mean square + epsilon) [T], from x, weight and dy. A fourth input is added to dx: the gradient that
 * passes the norm by.
 */
export const rmsNormBackwardOp: Op<RmsNormAttributes> = {
  name: "rmsNormBackward",
  infer: ([x]) => [{ shape: x!.shape, dtype: "f32" }, { shape: [x!.dim(0)], dtype: "f32" }],
  lower: (context) => lowerNorm(context, BACKWARD),
};

/** The gradient of a norm's weight, f32 [H], from x, dy, the scale of each row, and its mean where that was taken from x first. */
export function normWeightGradient(x: Tensor, dy: Tensor, scale: Tensor, mean?: Tensor): Tensor {
  return x.graph.add(rmsNormWeightOp, [x, dy, scale, ...(mean ? [mean] : [])], null)[0]!;
}

const rmsNormWeightOp: Op<null> = {
  name: "rmsNormWeight",
  infer: ([x]) => [{ shape: [x!.dim(1)], dtype: "f32" }],
  lower({ inputs, outputs, device, scratch, dispatch }) {
    const [rows, width] = [inputs[0]!.dim(0), inputs[0]!.dim(1)];
    const blocks = Math.ceil(rows / BLOCK);
    const columns = Math.ceil(width / 64);
    const partial = scratch([blocks, width], "f32");
    dispatch({
      kernel: "rmsNormWeight",
      wgsl: expandTemplate("rms_norm_weight", weightGradient, { LEVEL: 1, CENTRED: inputs.length === 4 }),
      tensors: [...inputs, partial],
      size: [rows, width, columns, columns * blocks],
      groups: grid(columns * blocks, device),
      flops: 3 * rows * width,
      // Every column has the scale of a row, and its mean, once more.
      traffic: 4 * width * (rows * inputs.length + blocks),
    });
    dispatch({
      kernel: "rmsNormWeight sum",
      wgsl: expandTemplate("rms_norm_weight", weightGradient, { LEVEL: 2, CENTRED: false }),
      tensors: [partial, outputs[0]!],
      size: [blocks, width, columns, columns],
      groups: grid(columns, device),
      flops: blocks * width,
    });
  },
};

/** A kernel that makes one row with one workgroup. */
export interface RowKernel {
  readonly kernel: string;
  readonly name: string;
  readonly source: string;
  /** A kernel for software devices and rows that fit their registers. */
  readonly short?: string;
  /** Type of the sums over a row. */
  readonly sum: string;
  readonly flopsEach: number;
  /** How often a row that is too long for registers is read. */
  readonly reads: { readonly x: number; readonly weight: number; readonly dy: number };
}

const FORWARD: RowKernel = {
  kernel: "rmsNorm",
  name: "rms_norm",
  source: forward,
  short: shortRows,
  sum: "f32",
  flopsEach: 4,
  reads: { x: 2, weight: 1, dy: 0 },
};
const BACKWARD: RowKernel = {
  kernel: "rmsNormBackward",
  name: "rms_norm_backward",
  source: backward,
  short: shortRows,
  sum: "vec2<f32>",
  flopsEach: 10,
  reads: { x: 2, weight: 2, dy: 2 },
};

/** Units of a row that a lane of a software device keeps in registers, and rows that one of its workgroups makes of so short ones. */
const SHORT_UNITS = 12;
const SHORT_ROWS = 8;

/** Lowers a norm, forward or backward: x [T, H] and a weight [H] come first among its inputs. */
export function lowerNorm(context: LoweringContext<RmsNormAttributes>, k: RowKernel): void {
  const { inputs, outputs, attributes, device } = context;
  const [rows, width] = [inputs[0]!.dim(0), inputs[0]!.dim(1)];
  const weight = inputs[1]!;
  const vector = width % 4 === 0 ? 4 : 1;
  const { subgroup, threads, held, constants } = rowThreads(width / vector, device);
  const units = Math.ceil(width / vector / 8);
  const addend = inputs.length > 3;
  const of = {
    ADDEND: addend,
    WEIGHT: weight.dtype,
    VECTOR: vector,
    FACTOR: attributes.plusOne ? "(1.0 + weight(at))" : "weight(at)",
  };
  const includes = weightIncludes(weight);
  const short = subgroup && units <= SHORT_UNITS ? k.short : undefined;
  const workgroups = short ? Math.ceil(rows / SHORT_ROWS) : rows;
  const wgsl = short
    ? expandTemplate(`${k.name}_short`, short, {
      ...of,
      BACKWARD: outputs.length > 1,
      ROWS: SHORT_ROWS,
      UNITS: units,
      WHOLE: width === 8 * units * vector,
    }, includes)
    : expandTemplate(k.name, k.source, {
      ...of,
      ...constants,
      SUM: k.sum,
    }, { ...includes, row_sum: rowSum });
  // Each workgroup reads the weight.
  const times = (operand: keyof RowKernel["reads"]) =>
    held || short ? Math.min(1, k.reads[operand]) : k.reads[operand];
  context.dispatch({
    kernel: `${k.kernel} ${weight.dtype}${addend ? " + addend" : ""}${threads > 64 ? ` by ${threads}` : ""}`,
    wgsl,
    tensors: [...inputs, ...outputs],
    size: [rows, width / vector, { f32: width }, { f32: attributes.epsilon }],
    groups: grid(workgroups, device),
    flops: k.flopsEach * rows * width,
    traffic: workgroups * times("weight") * byteLength(weight) +
      rows * (times("x") + times("dy") + Number(addend)) * 4 * width +
      outputs.reduce((sum, t) => sum + byteLength(t), 0),
  });
}

/**
 * Divides every row by its root mean square and multiplies by a weight. All arithmetic is in f32.
 *
 * @param x f32 [T, H]
 * @param weight [H] in any storage of weights; only f32 can be trained
 * @param epsilon Added to the mean square
 * @param options `plusOne`: multiply by 1 + weight, added in f32 after unpacking (Gemma, arXiv 2403.08295)
 * @throws {ShapeError} if shapes or types are others
 */
export function rmsNorm(
  x: Tensor,
  weight: Tensor,
  epsilon: number,
  { plusOne = false }: { readonly plusOne?: boolean } = {},
): Tensor {
  return x.graph.add(rmsNormOp, [x, weight], { epsilon, ...(plusOne ? { plusOne } : {}) })[0]!;
}

/**
 * {@linkcode rmsNorm} of every head on its own, all with one weight: what stands before the rotary positions in Qwen3 and Gemma 3.
 *
 * @param x f32 [T, heads * headDim]
 * @param weight [headDim] in any storage of weights
 */
export function headNorm(
  x: Tensor,
  weight: Tensor,
  epsilon: number,
  options: { readonly plusOne?: boolean } = {},
): Tensor {
  const [rows, headDim] = [x.dim(0), weight.dim(0)];
  ensure(x.dim(1) % headDim === 0, "headNorm", [x, weight], `${x.dim(1)} columns are no heads of ${headDim}`);
  const heads = reshape(x, [rows * x.dim(1) / headDim, headDim]);
  return reshape(rmsNorm(heads, weight, epsilon, options), x.shape);
}
