/**
 * The language-model head and the losses over its rows, a chunk of rows at a time, so that no [T, V] tensor exists for either
 * model.
 *
 * For each chunk: logits of the learner, logits of the target, one row kernel that turns the learner's logits into their gradient in
 * place and writes each loss per row, and the product that takes this gradient back to the hidden states. What is kept is one
 * gradient per row with unit weight; the backward pass multiplies row t by whatever arrives from above, so any function of row
 * losses is ordinary graph.
 *
 * Where something of the learner's head is trained, the backward pass makes logits and row gradients of each chunk once more, multiplies
 * row t by what arrives from above, and goes back through the head to what is trained. That costs the head's forward pass twice, and no
 * more memory than a chunk.
 *
 * @module
 */
import rowScaleSource from "../../../kernels/row_scale.wgsl" with { type: "text" };
import lossSumsSource from "../../../kernels/loss_sums.wgsl" with { type: "text" };
import weightedRowsSource from "../../../kernels/weighted_rows.wgsl" with { type: "text" };
import type { AdapterDescription } from "../../gpu/description.ts";
import { expandTemplate } from "../../gpu/template.ts";
import { gradients } from "../../tensor/differentiate.ts";
import type { Graph, StepScalar, Tensor } from "../../tensor/graph.ts";
import { ensure, grid, type Op, type SizeWord } from "../../tensor/op.ts";
import { accumulate } from "../../tensor/ops/accumulate.ts";
import { empty, fillConstant } from "../../tensor/ops/fill.ts";
import { matmul, matmulInto } from "../../tensor/ops/matmul.ts";
import { pointwise } from "../../tensor/ops/pointwise.ts";
import { reshape, rows } from "../../tensor/ops/views.ts";

/** A kernel over one row of logits at a time, as the registry compiles it from an objective. */
export interface RowKernel {
  readonly name: string;
  readonly wgsl: string;
  /** Words of memory that it needs for each row while it does it. */
  readonly memoryWords: number;
  /** Words of its size struct, for a dispatch over rows from `first` to before `end`. */
  size(rows: number, part: { readonly first: number; readonly end: number }): SizeWord[];
  readonly groups: (rows: number) => number;
}

/** The losses of an objective as the head needs them. */
export interface RowLosses {
  /** Values written per row, K: the objective's losses first, in its order. */
  readonly valueCount: number;
  /** Weight of each value in the objective, by name of its step scalar; monitored values have none. */
  readonly weights: readonly (StepScalar | undefined)[];
  /** Whether the target's logits are compared. */
  readonly needsTarget: boolean;
  /** Whether rows come with the bits of token masks, rather than counting where they have a label. */
  readonly tokenMasks: boolean;
  /** Whether a cached target is compared. */
  readonly needsCache: boolean;
  compile(adapter: AdapterDescription, gradient: boolean): RowKernel;
}

/** A model's side of the head. */
export interface HeadInput {
  /** Final hidden states, f32 [T, H]. */
  readonly hidden: Tensor;
  /** [V, H] */
  readonly weight: Tensor;
  /** Logits f32 [n, V] of hidden states x [n, H], where they are more than x W^T: with an adapter on the head. */
  readonly adapted?: (x: Tensor) => Tensor;
  /** What is trained of the head: its weight, or the parameters of its adapter. */
  readonly trained?: readonly HeadParameter[];
}

/** A trained parameter of the head. */
export interface HeadParameter {
  readonly tensor: Tensor;
  /** Adds the gradient of a chunk of rows to that of the parameter. */
  addGradient(gradient: Tensor): void;
}

/** What a loss is told of each position. */
export interface Labels {
  /** The next token, i32 [T]; -100 where there is none. */
  readonly labels: Tensor;
  /** Bits of token masks, i32 [T]; wanted where losses have them. */
  readonly masks?: Tensor;
}

/** A target from a cache, as row kernels bind it: ids [T, K], logits [T, K] and, but for samples, tails [T, C]. */
export type CachedRows = readonly Tensor[];

/** What {@linkcode chunkedLoss} traces. */
export interface ChunkedLoss {
  /** Values of every loss, unweighted: f32 [chunks, K * chunkRows], each chunk K rows of chunkRows. */
  readonly values: Tensor;
  /** sum_k weight_k value_k of each position, f32 [T]; differentiable with respect to the learner's hidden states and trained head. */
  readonly weighted: Tensor | undefined;
}

/**
 * Traces head and losses over all T positions.
 *
 * @param chunkRows Positions at a time; a multiple of 64 that divides T
 * @param target The other model, or what a cache has of it; absent where nothing compares
 * @param gradient Whether gradients are wanted; without, logits are only read
 * @param onLogits Sees the learner's logits f32 [chunkRows, V] of each chunk, before any loss does, and the chunk's first row
 */
export function chunkedLoss(
  graph: Graph,
  learner: HeadInput,
  target: HeadInput | CachedRows | undefined,
  { labels, masks }: Labels,
  losses: RowLosses,
  chunkRows: number,
  gradient: boolean,
  onLogits: (logits: Tensor, first: number) => void = () => {},
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
  const part = (t: Tensor, c: number) => rows(t, c * chunkRows, chunkRows);
  /** Traces a chunk up to the gradient of its logits, which takes their place; the rows' losses go into `values`. */
  const traceChunk = (c: number, values: Tensor) => {
    const x = part(learner.hidden, c);
    const logits = logitsOf(learner, x);
    onLogits(logits, c * chunkRows);
    const bound = masks ? [part(masks, c)] : [];
    if (target && "hidden" in target) {
      if (losses.needsTarget) bound.push(logitsOf(target, part(target.hidden, c)));
    } else if (target && losses.needsCache) bound.push(...target.map((t) => part(t, c)));
    const inputs = [part(labels, c), logits, values, ...bound];
    const [, dLogits] = graph.add(rowLossOp, inputs, { losses, gradient });
    return { x, logits, dLogits: dLogits! };
  };
  return graph.within("head", () => {
    const values = empty(graph, [chunks, losses.valueCount * chunkRows]);
    const unit = gradient ? unitGradients(graph, learner) : undefined;
    for (let c = 0; c < chunks; c++) {
      const { x, logits, dLogits } = traceChunk(c, rows(values, c, 1));
      if (unit && learner.adapted) {
        accumulate(part(unit, c), gradients(graph, [[logits, dLogits]], [x])[0]!, 1);
      } else if (unit) matmulInto(part(unit, c), "NN", dLogits, learner.weight);
    }
    const { trained = [] } = learner;
    const trainHead = (above: Tensor) => {
      for (let c = 0; c < chunks; c++) {
        const { logits, dLogits } = traceChunk(c, empty(graph, [1, losses.valueCount * chunkRows]));
        const seed = pointwise([dLogits, reshape(part(above, c), [chunkRows, 1])], (d, a) => d!.mul(a!));
        gradients(graph, [[logits, seed]], trained.map((p) => p.tensor))
          .forEach((found, i) => found && trained[i]!.addGradient(found));
      }
    };
    const weighted = unit &&
      graph.add(weightedRowsOp, [values, unit, learner.hidden, ...trained.map((p) => p.tensor)], {
        losses,
        chunkRows,
        trainHead,
      })[0]!;
    return { values, weighted };
  });
}

function logitsOf({ weight, adapted }: HeadInput, x: Tensor): Tensor {
  return adapted ? adapted(x) : matmul("NT", x, weight);
}

/** The memory of the unit gradients. */
function unitGradients(graph: Graph, { hidden, adapted }: HeadInput): Tensor {
  return adapted ? fillConstant(graph, hidden.shape, 0) : empty(graph, hidden.shape);
}

/** Labels, learner logits, values, perhaps token masks, target: writes the values, and the gradient over the learner's logits. */
const rowLossOp: Op<{ losses: RowLosses; gradient: boolean }> = {
  name: "rowLoss",
  mutates: true,
  alias: (output) => ({ input: output === 0 ? 2 : 1, byteOffset: 0 }),
  infer(inputs, { losses }) {
    const [labels, logits, values] = inputs;
    ensure(
      !losses.needsTarget || String(inputs.at(-1)!.shape) === String(logits!.shape),
      "rowLoss",
      inputs,
      "both models need one vocabulary",
    );
    ensure(labels!.dim(0) === logits!.dim(0), "rowLoss", inputs, "one label a row");
    return [values!, logits!];
  },
  lower({ inputs, attributes, adapter, scratch, dispatch }) {
    const [labels, logits, values, ...bound] = inputs as [Tensor, Tensor, Tensor, ...Tensor[]];
    const { losses, gradient } = attributes;
    const kernel = losses.compile(adapter, gradient);
    const [count, vocabulary] = [logits.dim(0), logits.dim(1)];
    const { memoryWords } = kernel;
    const most = Math.min(ROW_MEMORY, adapter.maxBindingSize);
    const together = memoryWords === 0 ? count : rowsTogether(count, Math.floor(most / (4 * memoryWords)));
    const memory = memoryWords === 0 ? [] : [scratch([together, memoryWords], "u32")];
    for (let first = 0; first < count; first += together) {
      const end = Math.min(count, first + together);
      dispatch({
        kernel: kernel.name,
        wgsl: kernel.wgsl,
        tensors: [labels, ...bound, logits, values, ...memory],
        size: kernel.size(count, { first, end }),
        groups: grid(kernel.groups(end - first), adapter),
        flops: 20 * (end - first) * vocabulary,
      });
    }
  },
};

/** Bytes that losses with memory of their own may have for all rows of a dispatch: enough rows to keep a GPU busy. */
const ROW_MEMORY = 64 * 2 ** 20;

/** Rows of a dispatch, at most so many, so that all dispatches have about the same number. */
function rowsTogether(count: number, most: number): number {
  return Math.ceil(count / Math.ceil(count / Math.max(1, most)));
}

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
const weightedRowsOp: Op<WeightedRowsAttributes> = {
  name: "weightedRows",
  infer: ([, unit]) => [{ shape: [unit!.dim(0)], dtype: "f32" }],
  gradient({ inputs, attributes, outputGradients: [above], needed }) {
    if (needed.includes(true, 3)) attributes.trainHead(above!);
    return [undefined, undefined, needed[2] ? rowScale(inputs[1]!, above!) : undefined];
  },
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

const lossSumsOp: Op<{ keep: StepScalar; first: number; count: number }> = {
  name: "lossSums",
  mutates: true,
  alias: () => ({ input: 1, byteOffset: 0 }),
  infer: ([, state]) => [state!],
  lower({ inputs, outputs, attributes: { keep, first, count }, dispatch }) {
    const [values] = inputs as [Tensor];
    dispatch({
      kernel: "lossSums",
      wgsl: expandTemplate("loss_sums", lossSumsSource, {}),
      tensors: [values, outputs[0]!],
      size: [values.dim(0), count, values.dim(1) / count, keep, first],
      groups: [count, 1, 1],
    });
  },
};

/**
 * Adds the sum over all positions of each of `count` losses into a state, from element `first` on; see `accumulate` for `keep`.
 *
 * @param values f32 [chunks, count * chunkRows], each chunk `count` rows of chunkRows
 */
export function lossSums(
  values: Tensor,
  state: Tensor,
  keep: StepScalar,
  { first, count }: { first: number; count: number } = { first: 0, count: state.dim(0) },
): void {
  state.graph.add(lossSumsOp, [values, state], { keep, first, count });
}
