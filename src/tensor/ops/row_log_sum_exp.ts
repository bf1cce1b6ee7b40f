/**
 * Log-sum-exps of rows: what turns logits into logarithms of probabilities.
 *
 * @module
 */
import source from "../../../kernels/row_log_sum_exp.wgsl" with { type: "text" };
import rowSum from "../../../kernels/include/row_sum.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import { rowThreads } from "../row_threads.ts";
import { constant, exp, stepScalar } from "../expr/mod.ts";
import type { StepScalar, Tensor } from "../graph.ts";
import { ensure, grid, type Op } from "../op.ts";
import { pointwise } from "./pointwise.ts";

interface Attributes {
  /** 1 when absent. */
  readonly temperature?: StepScalar;
}

/** y[t] = log sum_n exp(x[t, n] / temperature). */
const rowLogSumExpOp: Op<Attributes> = {
  name: "rowLogSumExp",
  infer(inputs) {
    const [x] = inputs;
    ensure(x!.shape.length === 2 && x!.dtype === "f32", "rowLogSumExp", inputs, "expected f32 [T, N]");
    return [{ shape: [x!.dim(0), 1], dtype: "f32" }];
  },
  gradient({ inputs, outputs, attributes: { temperature }, outputGradients }) {
    const tau = temperature ? stepScalar(temperature.name) : constant(1);
    return [
      pointwise(
        [inputs[0]!, outputs[0]!, outputGradients[0]!],
        (x, y, above) => above!.div(tau).mul(exp(x!.div(tau).sub(y!))),
      ),
    ];
  },
  lower({ inputs, outputs, attributes: { temperature }, device, dispatch }) {
    const [rows, width] = [inputs[0]!.dim(0), inputs[0]!.dim(1)];
    const vector = width % 4 === 0 ? 4 : 1;
    const { threads, constants } = rowThreads(width / vector, device);
    dispatch({
      kernel: `rowLogSumExp${threads > 64 ? ` by ${threads}` : ""}`,
      wgsl: expandTemplate("row_log_sum_exp", source, {
        ...constants,
        VECTOR: vector,
        TEMPERATURE: temperature !== undefined,
        SUM: "f32",
      }, { row_sum: rowSum }),
      tensors: [inputs[0]!, outputs[0]!],
      size: [rows, width / vector, temperature ?? 0],
      groups: grid(rows, device),
      flops: 4 * rows * width,
      // Once for the largest, once for the sum; every thread begins with the row's first unit.
      traffic: 4 * rows * (2 * width + vector * threads + 1),
    });
  },
};

/**
 * log sum_n exp(x[t, n] / temperature) of every row, taken from the row's largest so that nothing overflows.
 *
 * @param x f32 [T, N]
 * @param temperature Name of the step scalar that holds it; 1 when absent
 * @returns f32 [T, 1]
 * @throws {ShapeError} if x is no matrix of f32
 */
export function rowLogSumExp(x: Tensor, temperature?: string): Tensor {
  const attributes = temperature === undefined ? {} : { temperature: x.graph.scalar(temperature) };
  return x.graph.add(rowLogSumExpOp, [x], attributes)[0]!;
}
