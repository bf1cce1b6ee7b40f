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
import { gradients } from "../../tensor/differentiate.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { ensure } from "../../tensor/op.ts";
import { accumulate } from "../../tensor/ops/accumulate.ts";
import { empty, fillConstant } from "../../tensor/ops/fill.ts";
import { matmul, matmulInto } from "../../tensor/ops/matmul.ts";
import { pointwise } from "../../tensor/ops/pointwise.ts";
import { reshape, rows } from "../../tensor/ops/views.ts";
import { type RowLosses, rowLossOp } from "./row_loss.ts";
import { weightedRowsOp } from "./weighted_rows.ts";

/** A model's side of the head. */
export interface HeadInput {
  /** Final hidden states, f32 [T, H]. */
  readonly hidden: Tensor;
  /** [V, H] */
  readonly weight: Tensor;
  /** Logits f32 [n, V] of hidden states x [n, H], where they are more than x W^T: with an adapter on the head, or a soft cap. */
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

/** A target with logits for the whole vocabulary, made a chunk of rows at a time. */
export interface DenseTarget {
  /** Its logits f32 [count, V] at `count` positions from `first` on. */
  logits(first: number, count: number): Tensor;
}

/** What the rows of a learner are compared with. */
export type Target = DenseTarget | CachedRows;

/** The logits of another model's head. */
export function headTarget(head: HeadInput): DenseTarget {
  return { logits: (first, count) => logitsOf(head, rows(head.hidden, first, count)) };
}

/** What {@linkcode chunkedLoss} traces. */
export interface ChunkedLoss {
  /** Values of every loss, unweighted: f32 [chunks, K * chunkRows], each chunk K rows of chunkRows. */
  readonly values: Tensor;
  /** sum_k weight_k value_k of each position, f32 [T]; differentiable with respect to the learner's hidden states and trained head. */
  readonly weighted: Tensor | undefined;
}

/** What {@linkcode chunkedLoss} is made of. */
export interface ChunkedLossInputs extends Labels {
  readonly learner: HeadInput;
  /** Absent where nothing compares. */
  readonly target?: Target | undefined;
  readonly losses: RowLosses;
  /** What the losses bind beside, of `count` positions from `first` on. */
  readonly beside?: (first: number, count: number) => readonly Tensor[];
  /** Positions at a time; a multiple of 64 that divides T. */
  readonly chunkRows: number;
  /** Whether gradients are wanted; without, logits are only read. */
  readonly gradient: boolean;
  /** Sees the learner's logits f32 [chunkRows, V] of each chunk, before any loss does, and the chunk's first row. */
  readonly onLogits?: (logits: Tensor, first: number) => void;
}

/**
 * Traces losses that look at no target over logits that something makes a chunk at a time.
 *
 * @returns the losses of each position; see {@linkcode ChunkedLoss.values}
 */
export function targetLosses(
  graph: Graph,
  { target, labels, masks, losses, chunkRows }:
    & Omit<ChunkedLossInputs, "learner" | "gradient" | "onLogits">
    & { readonly target: DenseTarget },
): Tensor {
  return graph.within("head", () => {
    const chunks = labels.dim(0) / chunkRows;
    const values = empty(graph, [chunks, losses.valueCount * chunkRows]);
    for (let c = 0; c < chunks; c++) {
      const part = (t: Tensor) => rows(t, c * chunkRows, chunkRows);
      const inputs = [
        part(labels),
        target.logits(c * chunkRows, chunkRows),
        rows(values, c, 1),
        ...(masks ? [part(masks)] : []),
      ];
      graph.add(rowLossOp, inputs, { losses, gradient: false });
    }
    return values;
  });
}

/** Traces head and losses over all T positions. */
export function chunkedLoss(
  graph: Graph,
  { learner, target, labels, masks, losses, beside, chunkRows, gradient, onLogits }: ChunkedLossInputs,
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
    onLogits?.(logits, c * chunkRows);
    const bound = masks ? [part(masks, c)] : [];
    if (beside) bound.push(...beside(c * chunkRows, chunkRows));
    if (target && "logits" in target) {
      if (losses.needsTarget) bound.push(target.logits(c * chunkRows, chunkRows));
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
