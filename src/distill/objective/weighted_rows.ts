/**
 * The weighted sum of a position's losses, and its way back to the hidden states: gradients of unit weight, times whatever arrives from
 * above.
 *
 * @module
 */
import rowScaleSource from "../../../kernels/row_scale.wgsl" with { type: "text" };
import weightedRowsSource from "../../../kernels/rows/weighted_rows.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { Tensor } from "../../tensor/graph.ts";
import { ensure, grid, type LoweringContext, type Op } from "../../tensor/op.ts";
import type { RowLosses } from "./row_loss.ts";

interface WeightedRowsAttributes {
  readonly losses: RowLosses;
  readonly chunkRows: number;
  /** Traces the backward pass to what is trained of the head, and adds its gradients where they belong. */
  trainHead(above: Tensor): void;
}

/**
 * values, unit gradients, hidden states, what is trained of the head: sum_k w_k value_k per position. The gradient of the hidden states
 * is the unit gradients, scaled by row.
 */
export const weightedRowsOp: Op<WeightedRowsAttributes> = {
  name: "weightedRows",
  infer: ([, unit]) => [{ shape: [unit!.dim(0)], dtype: "f32" }],
  gradient({ inputs, attributes, outputGradients: [above], needed }) {
    if (needed.includes(true, 3)) attributes.trainHead(above!);
    return [undefined, undefined, needed[2] ? rowScale(inputs[1]!, above!) : undefined];
  },
  lower: lowerWeightedValues,
};

/** Values that are weighted and added up. */
interface WeightedValues {
  readonly losses: Pick<RowLosses, "valueCount" | "weights">;
  readonly chunkRows: number;
}

function lowerWeightedValues(
  { inputs, outputs, attributes: { losses, chunkRows }, device, dispatch }: LoweringContext<WeightedValues>,
): void {
  const total = outputs[0]!.dim(0);
  const groups = Math.ceil(total / 64);
  const weighted = losses.weights.flatMap((weight, k) => (weight ? [{ k, weight }] : []));
  dispatch({
    kernel: "weightedRows",
    wgsl: expandTemplate("weighted_rows", weightedRowsSource, { TERMS: weighted.length }),
    tensors: [inputs[0]!, outputs[0]!],
    size: [
      total,
      groups,
      chunkRows,
      losses.valueCount,
      ...weighted.flatMap(({ k, weight }) => [k, weight, 0, 0]),
    ],
    groups: grid(groups, device),
  });
}

const weightedValuesOp: Op<WeightedValues> = {
  name: "weightedValues",
  infer: ([values], { losses }) => [{
    shape: [values!.dim(0) * values!.dim(1) / losses.valueCount],
    dtype: "f32",
  }],
  lower: lowerWeightedValues,
};

/**
 * sum_k w_k value_k per position, f32 [T], constant in every gradient.
 *
 * @param values f32 [chunks, K * chunkRows], each chunk K rows of chunkRows
 */
export function weightedValues(values: Tensor, sums: WeightedValues): Tensor {
  return values.graph.add(weightedValuesOp, [values], sums)[0]!;
}

const rowScaleOp: Op<null> = {
  name: "rowScale",
  infer(inputs) {
    const [x, factors] = inputs;
    ensure(
      x!.dim(0) === factors!.dim(0) && factors!.shape.length === 1,
      "rowScale",
      inputs,
      "one factor a row",
    );
    ensure(x!.dim(1) % 4 === 0, "rowScale", inputs, "the width must be a multiple of 4");
    return [{ shape: x!.shape, dtype: "f32" }];
  },
  lower({ inputs, outputs, device, dispatch }) {
    const vectors = outputs[0]!.dim(0) * outputs[0]!.dim(1) / 4;
    const groups = Math.ceil(vectors / 64);
    dispatch({
      kernel: "rowScale",
      wgsl: rowScaleSource,
      tensors: [inputs[0]!, inputs[1]!, outputs[0]!],
      size: [vectors, groups, outputs[0]!.dim(1) / 4],
      groups: grid(groups, device),
      flops: vectors * 4,
      traffic: vectors * 36,
    });
  },
};

/** y[t, :] = factors[t] * x[t, :] for x [T, H] and factors [T]. */
function rowScale(x: Tensor, factors: Tensor): Tensor {
  return x.graph.add(rowScaleOp, [x, factors], null)[0]!;
}
