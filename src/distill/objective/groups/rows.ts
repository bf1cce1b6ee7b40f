/**
 * A loss over groups of tokens of two tokenisations, traced: rows gathered by index, factors by the chain rule, and the head over them a
 * chunk of rows at a time.
 *
 * Of each group one row of either model goes through its head: the base. The probabilities of the group's other tokens are cross-entropies of
 * their rows at the loss's temperature, so the log scale of a group is an ordinary sum of row losses, and the gradient of a factor is that of
 * a cross-entropy, times the loss's slope by the scale. No [T, V] tensor exists for either model.
 *
 * @module
 */
import {
  compileGroupLoss,
  type GroupLossShape,
  type ResolvedGroupLoss,
} from "../../../losses/compile_group.ts";
import type { GroupRows } from "../../../losses/group_contract.ts";
import type { Graph, Tensor } from "../../../tensor/graph.ts";
import { detach } from "../../../tensor/ops/detach.ts";
import { fillConstant } from "../../../tensor/ops/fill.ts";
import { gatherSum } from "../../../tensor/ops/gather_sum.ts";
import { neg } from "../../../tensor/expr/mod.ts";
import { pointwise } from "../../../tensor/ops/pointwise.ts";
import { reshape, rows } from "../../../tensor/ops/views.ts";
import { chunkedLoss, type HeadInput, headTarget } from "../chunked_loss.ts";
import type { RowLosses } from "../row_loss.ts";
import { weightedValues } from "../weighted_rows.ts";

/** Where the groups of a batch lie in one model's stream of T tokens, as inputs of a block. G groups, with padding. */
export interface GroupStream {
  /** i32 [G, 1]: the base row of each group, or -1. */
  readonly base: Tensor;
  /** i32 [T, 1]: the group whose base each row is, or -1. */
  readonly baseOf: Tensor;
  /** i32 [G, EACH]: the rows of each group's other tokens, or -1. */
  readonly factors: Tensor;
  /** i32 [T, 1]: the group of which each row is such, or -1. */
  readonly factorOf: Tensor;
  /** i32 [T]: the token that such a row predicts; -100 elsewhere. */
  readonly tokens: Tensor;
}

/** What {@linkcode groupLoss} is made of. */
export interface GroupLossInputs {
  readonly learner: HeadInput;
  readonly target: HeadInput;
  readonly student: GroupStream;
  readonly teacher: GroupStream;
  /** i32 [G]: 0; -100 where there is no group. */
  readonly counted: Tensor;
  /** i32 [V + W]: the token of the other vocabulary that stands for the same, or -1; wanted where the loss needs it. */
  readonly match?: Tensor | undefined;
  readonly term: ResolvedGroupLoss;
  readonly shape: GroupLossShape;
  /** Cross-entropy at the term's temperature over either vocabulary, as the factors need it. */
  readonly crossEntropy: { readonly student: RowLosses; readonly teacher: RowLosses };
  /** Rows of a head at a time: of the groups, and of either stream. */
  readonly chunkRows: { readonly groups: number; readonly student: number; readonly teacher: number };
  readonly gradient: boolean;
}

/** What {@linkcode groupLoss} traces. */
export interface TracedGroupLoss {
  /** f32 [chunks, K * rows]: the loss of each group, unweighted, first. */
  readonly values: Tensor;
  readonly valueCount: number;
  /** weight * D of each group, f32 [G]; differentiable like that of a row loss, and by way of the factors. */
  readonly weighted: Tensor | undefined;
}

/** Traces the loss of each group. */
export function groupLoss(graph: Graph, inputs: GroupLossInputs): TracedGroupLoss {
  const { learner, target, student, teacher, counted, match, term, shape, chunkRows, gradient } = inputs;
  const factored = hasFactors(term.loss.rows(term.options));
  const scaleOf = (side: "student" | "teacher", head: HeadInput, training: boolean) =>
    factored
      ? logScale(graph, head, inputs[side], inputs.crossEntropy[side], chunkRows[side], training)
      : fillConstant(graph, counted.shape, 0);
  const own = scaleOf("student", learner, gradient);
  const other = scaleOf("teacher", target, false);
  const losses = groupLosses(graph, term, shape, gradient);
  const { values, weighted } = chunkedLoss(graph, {
    learner: {
      ...learner,
      hidden: gatherSum(learner.hidden, { index: student.base, inverse: student.baseOf }),
    },
    target: headTarget({
      ...target,
      hidden: gatherSum(target.hidden, { index: teacher.base, inverse: teacher.baseOf }),
    }),
    labels: counted,
    beside: (first, count) => [
      rows(own, first, count),
      rows(other, first, count),
      ...(match && term.loss.needsMatch ? [match] : []),
    ],
    ...{ losses, chunkRows: chunkRows.groups, gradient },
  });
  const { valueCount } = losses;
  if (!weighted || !factored) return { values, valueCount, weighted };
  // Nothing is added to the value; by the scale the sum's derivative is the loss's slope.
  const slopes = weightedValues(values, {
    losses: { valueCount, weights: [undefined, losses.weights[0]] },
    chunkRows: chunkRows.groups,
  });
  const withSlope = pointwise(
    [weighted, slopes, own, detach(own)],
    (d, s, x, constant) => d!.add(s!.mul(x!.sub(constant!))),
  );
  return { values, valueCount, weighted: withSlope };
}

/** Whether groups of more than one token are more than one row. */
function hasFactors(rows: GroupRows): boolean {
  return rows === "chain" || rows === "observed";
}

/** The logarithm of the product of the probabilities of each group's other tokens, f32 [G]. */
function logScale(
  graph: Graph,
  head: HeadInput,
  { tokens, factors, factorOf }: GroupStream,
  losses: RowLosses,
  chunkRows: number,
  gradient: boolean,
): Tensor {
  const { values, weighted } = chunkedLoss(graph, {
    learner: head,
    labels: tokens,
    ...{ losses, chunkRows, gradient },
  });
  const count = head.hidden.dim(0);
  const sums = gatherSum(reshape(weighted ?? values, [count, 1]), { index: factors, inverse: factorOf });
  return pointwise([reshape(sums, [factors.dim(0)])], (x) => neg(x!));
}

function groupLosses(
  graph: Graph,
  term: ResolvedGroupLoss,
  shape: GroupLossShape,
  gradient: boolean,
): RowLosses {
  return {
    valueCount: gradient ? 2 : 1,
    weights: [graph.scalar(`${term.name}.weight`), ...(gradient ? [undefined] : [])],
    ...{ needsTarget: true, needsCache: false, tokenMasks: false, ownVocabularies: true },
    compile: (device, gradient) => {
      const { label, wgsl, memoryWords, size, groups } = compileGroupLoss(term, shape, device, { gradient });
      return {
        ...{ name: label, wgsl, memoryWords, groups },
        size: (rows, part) => size(rows, (name) => graph.scalar(name), part),
      };
    },
  };
}
