/**
 * The language-model head and the losses over its rows, a chunk of rows at a time, so that no [T, V] tensor exists for either
 * model.
 *
 * For each chunk: logits of the learner, logits of the target, one row kernel that turns the learner's logits into their gradient in
 * place and writes each loss per row, and the product that takes this gradient back to the hidden states. What is kept is one
 * gradient per row with unit weight; the backward pass multiplies row t by whatever arrives from above, so any function of row
 * losses is ordinary graph.
 *
 * @module
 */
import rowScaleSource from "../../kernels/row_scale.wgsl" with { type: "text" };
import lossSumsSource from "../../kernels/loss_sums.wgsl" with { type: "text" };
import weightedRowsSource from "../../kernels/weighted_rows.wgsl" with { type: "text" };
import type { AdapterDescription } from "../gpu/description.ts";
import { expandTemplate } from "../gpu/template.ts";
import type { Graph, StepScalar, Tensor } from "../tensor/graph.ts";
import { ensure, grid, type Op, type SizeWord } from "../tensor/op.ts";
import { empty } from "../tensor/ops/fill.ts";
import { matmul, matmulInto } from "../tensor/ops/matmul.ts";
import { rows } from "../tensor/ops/views.ts";

/** A kernel over one row of logits at a time, as the registry compiles it from an objective. */
export interface RowKernel {
  readonly name: string;
  readonly wgsl: string;
  /** Whether it binds the target's logits. */
  readonly needsTarget: boolean;
  /** Words of its size struct. */
  size(rows: number): SizeWord[];
  readonly groups: (rows: number) => number;
}

/** The losses of an objective as the head needs them. */
export interface RowLosses {
  /** Values written per row, K: the objective's losses first, in its order. */
  readonly valueCount: number;
  /** Weight of each value in the objective, by name of its step scalar; monitored values have none. */
  readonly weights: readonly (StepScalar | undefined)[];
  readonly needsTarget: boolean;
  /** Whether rows come with the bits of token masks, rather than counting where they have a label. */
  readonly tokenMasks: boolean;
  compile(adapter: AdapterDescription, gradient: boolean): RowKernel;
}

/** A model's side of the head: its final hidden states f32 [T, H] and its head weight [V, H]. */
export interface HeadInput {
  readonly hidden: Tensor;
  readonly weight: Tensor;
}

/** What a loss is told of each position. */
export interface Labels {
  /** The next token, i32 [T]; -100 where there is none. */
  readonly labels: Tensor;
  /** Bits of token masks, i32 [T]; wanted where losses have them. */
  readonly masks?: Tensor;
}

/** What {@linkcode chunkedLoss} traces. */
export interface ChunkedLoss {
  /** Values of every loss, unweighted: f32 [chunks, K * chunkRows], each chunk K rows of chunkRows. */
  readonly values: Tensor;
  /** sum_k weight_k value_k of each position, f32 [T]; differentiable with respect to the learner's hidden states. */
  readonly weighted: Tensor | undefined;
}

/**
 * Traces head and losses over all T positions.
 *
 * @param chunkRows Positions at a time; a multiple of 64 that divides T
 * @param gradient Whether gradients are wanted; without, logits are only read
 */
export function chunkedLoss(
  graph: Graph,
  learner: HeadInput,
  target: HeadInput | undefined,
  { labels, masks }: Labels,
  losses: RowLosses,
  chunkRows: number,
  gradient: boolean,
): ChunkedLoss {
  const total = learner.hidden.dim(0);
  ensure(
    total % chunkRows === 0 && chunkRows % 64 === 0,
    "chunkedLoss",
    [learner.hidden],
    `chunks of ${chunkRows} rows must divide T and be a multiple of 64`,
  );
  ensure(
    (masks !== undefined) === losses.tokenMasks,
    "chunkedLoss",
    [labels],
    "token masks are given where losses have them",
  );
  const chunks = total / chunkRows;
  return graph.within("head", () => {
    const values = empty(graph, [chunks, losses.valueCount * chunkRows]);
    const unit = gradient ? empty(graph, learner.hidden.shape) : undefined;
    for (let c = 0; c < chunks; c++) {
      const part = (t: Tensor) => rows(t, c * chunkRows, chunkRows);
      const logits = matmul("NT", part(learner.hidden), learner.weight);
      const wanted = target && losses.needsTarget
        ? matmul("NT", part(target.hidden), target.weight)
        : undefined;
      const inputs = [part(labels), wanted ?? logits, logits, rows(values, c, 1)];
      if (masks) inputs.push(part(masks));
      const [, dLogits] = graph.add(rowLossOp, inputs, { losses, gradient });
      if (unit) matmulInto(part(unit), "NN", dLogits!, learner.weight);
    }
    const weighted = unit &&
      graph.add(weightedRowsOp, [values, unit, learner.hidden], { losses, chunkRows })[0]!;
    return { values, weighted };
  });
}

/** Labels, target logits, learner logits, values, perhaps token masks: writes the values, and the gradient over the learner's logits. */
const rowLossOp: Op<{ losses: RowLosses; gradient: boolean }> = {
  name: "rowLoss",
  mutates: true,
  alias: (output) => ({ input: output === 0 ? 3 : 2, byteOffset: 0 }),
  infer(inputs) {
    const [labels, target, logits, values] = inputs;
    ensure(
      String(target!.shape) === String(logits!.shape),
      "rowLoss",
      inputs,
      "both models need one vocabulary",
    );
    ensure(labels!.dim(0) === logits!.dim(0), "rowLoss", inputs, "one label a row");
    return [values!, logits!];
  },
  lower({ inputs, attributes, adapter, dispatch }) {
    const [labels, target, logits, values, masks] = inputs as [Tensor, Tensor, Tensor, Tensor, Tensor?];
    const { losses, gradient } = attributes;
    const kernel = losses.compile(adapter, gradient);
    const [count, vocabulary] = [logits.dim(0), logits.dim(1)];
    dispatch({
      kernel: kernel.name,
      wgsl: kernel.wgsl,
      tensors: [
        labels,
        ...(masks ? [masks] : []),
        ...(kernel.needsTarget ? [target] : []),
        logits,
        values,
      ],
      size: kernel.size(count),
      groups: grid(kernel.groups(count), adapter),
      flops: 20 * count * vocabulary,
    });
  },
};

/** values, unit gradients, hidden states: sum_k w_k value_k per position; its gradient is the unit gradients, scaled by row. */
const weightedRowsOp: Op<{ losses: RowLosses; chunkRows: number }> = {
  name: "weightedRows",
  infer: ([, unit]) => [{ shape: [unit!.dim(0)], dtype: "f32" }],
  gradient: (
    { inputs, outputGradients },
  ) => [undefined, undefined, rowScale(inputs[1]!, outputGradients[0]!)],
  lower({ inputs, outputs, attributes: { losses, chunkRows }, adapter, dispatch }) {
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
      groups: grid(groups, adapter),
    });
  },
};

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
  lower({ inputs, outputs, adapter, dispatch }) {
    const vectors = outputs[0]!.dim(0) * outputs[0]!.dim(1) / 4;
    const groups = Math.ceil(vectors / 64);
    dispatch({
      kernel: "rowScale",
      wgsl: rowScaleSource,
      tensors: [inputs[0]!, inputs[1]!, outputs[0]!],
      size: [vectors, groups, outputs[0]!.dim(1) / 4],
      groups: grid(groups, adapter),
      flops: vectors * 4,
    });
  },
};

/** y[t, :] = factors[t] * x[t, :] for x [T, H] and factors [T]. */
export function rowScale(x: Tensor, factors: Tensor): Tensor {
  return x.graph.add(rowScaleOp, [x, factors], null)[0]!;
}

const lossSumsOp: Op<{ keep: StepScalar; valueCount: number; chunkRows: number }> = {
  name: "lossSums",
  mutates: true,
  alias: () => ({ input: 1, byteOffset: 0 }),
  infer: ([, state]) => [state!],
  lower({ inputs, outputs, attributes: { keep, valueCount, chunkRows }, dispatch }) {
    dispatch({
      kernel: "lossSums",
      wgsl: expandTemplate("loss_sums", lossSumsSource, {}),
      tensors: [inputs[0]!, outputs[0]!],
      size: [inputs[0]!.dim(0), valueCount, chunkRows, keep],
      groups: [valueCount, 1, 1],
    });
  },
};

/** Adds the sum over all positions of each loss into a state f32 [K]; see `accumulate` for `keep`. */
export function lossSums(values: Tensor, state: Tensor, keep: StepScalar): void {
  const valueCount = state.dim(0);
  state.graph.add(lossSumsOp, [values, state], { keep, valueCount, chunkRows: values.dim(1) / valueCount });
}
