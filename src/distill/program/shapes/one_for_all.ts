/**
 * Training several shapes of a student at once (AmoebaLLM, Fu et al., arXiv 2411.10606): in each step the whole model learns from the data,
 * and smaller shapes of it learn from the whole one as it is in that step, or from a teacher that stays as it is.
 *
 * All shapes share weights, states and the memory of the largest. The final hidden states of the whole model, or of the teacher, stay for a
 * step; from them the others' target, its logits, are made anew a chunk of rows at a time. A smaller shape is the same block with layers left out and inputs
 * masked. Its gradients are summed up over the window by themselves and then added to those of the step times its factor
 *
 *   f_i = clamp(L_0 / L_i), a constant in the gradient,
 *
 * with the losses of the whole window: L_0 of the whole model, L_i of the shape. The gradient of a step is that of L_0 + sum_i f_i L_i. (The
 * authors' factor has no bounds and is made anew in each micro-batch.)
 *
 * @module
 */
import { gradients } from "../../../tensor/differentiate.ts";
import { max, min } from "../../../tensor/expr/mod.ts";
import type { Graph, Tensor } from "../../../tensor/graph.ts";
import { accumulate } from "../../../tensor/ops/accumulate.ts";
import { assign } from "../../../tensor/ops/assign.ts";
import { gatherRows, scatterRows } from "../../../tensor/ops/cache.ts";
import { fill } from "../../../tensor/ops/fill.ts";
import { pointwise, sumRows } from "../../../tensor/ops/pointwise.ts";
import { part, reshape } from "../../../tensor/ops/views.ts";
import type { Program } from "../../../tensor/plan.ts";
import { chunkedLoss, type HeadInput, headTarget } from "../../objective/chunked_loss.ts";
import type { Learner } from "../../recipe/recipe.ts";
import { FLAT } from "../../trained/parameters.ts";
import { BlockModels, GradientSums, type OneForAll, type TrainingProgramOptions } from "../block_models.ts";
import { labelInput } from "../metrics/measure.ts";
import { headInput, type Side, traceHead } from "../traced_model.ts";

/** Blocks and states. */
export const ONE_FOR_ALL = {
  /** Runs a micro-batch through a shape below the whole model. */
  shape: "shape",
  /** Adds the gradients of the step's i-th shape to those of the step. */
  balance: (i: number) => `balance.${i}`,
  /** Sum of the i-th shape's loss over the window, f32 [1]. */
  loss: (i: number) => `one-for-all.loss.${i}`,
  /** Its factor, f32 [1]. */
  factor: (i: number) => `one-for-all.factor.${i}`,
  /** i32 [T]: where the rows of a micro-batch lie in the hidden states of the window. */
  rows: "hiddenRows",
} as const;

/** Sum of the loss of the shape that runs, over the window. */
const RUNNING = "one-for-all.loss";

/** Elements of a flat buffer that one kernel adds, so that its bindings fit every device. */
const PIECE = 2 ** 24;

/** Keeps a loss that has vanished from being divided by. */
const SMALLEST = 1e-30;

/** Traces into the whole model's micro-batch what the other shapes need of it: the hidden states that they learn from, and its loss. */
export function traceTarget(
  graph: Graph,
  models: BlockModels,
  weighted: Tensor,
  options: TrainingProgramOptions,
  { target }: OneForAll,
): void {
  const rows = graph.input(ONE_FOR_ALL.rows, [options.tokens], "i32");
  scatterRows(hiddenState(graph, options, target), models.side(target).hidden, rows);
  addLoss(graph, ONE_FOR_ALL.loss(0), weighted);
}

/** Traces the blocks of the shapes below the whole model. */
export function traceShapes(program: Program, options: TrainingProgramOptions, oneForAll: OneForAll): void {
  traceShape(program.block(ONE_FOR_ALL.shape), options, oneForAll);
  for (let i = 1; i < oneForAll.shapes; i++) {
    traceBalance(program.block(ONE_FOR_ALL.balance(i)), i, options, oneForAll);
  }
}

function traceShape(
  graph: Graph,
  options: TrainingProgramOptions,
  { objective, widths, target }: OneForAll,
): void {
  const { tokens, chunkRows, trainables } = options;
  const sums = new GradientSums(graph, trainables.layout, { state: "shapeGradients", keep: 1 });
  const models = new BlockModels(graph, options, sums, { widths });
  const learner = models.side("student");
  const rows = graph.input(ONE_FOR_ALL.rows, [tokens], "i32");
  const losses = objective.rowLosses(objective.passes[0]!, graph);
  const { weighted } = chunkedLoss(graph, {
    learner,
    target: headTarget(
      targetInput(graph, gatherRows(hiddenState(graph, options, target), rows), learner, options, target),
    ),
    ...labelInput(graph, tokens, losses),
    ...{ losses, chunkRows, gradient: true },
  });
  addLoss(graph, RUNNING, weighted!);
  const seed = fill(graph, [tokens], graph.scalar("oneOverTokens"));
  const names = [...models.parameters.keys()];
  const found = gradients(graph, [[weighted!, seed]], [...models.parameters.values()]);
  found.forEach((gradient, i) => gradient && sums.add(names[i]!, gradient));
}

/** Hidden states with the head that they belong to. */
function targetInput(
  graph: Graph,
  hidden: Tensor,
  learner: Side,
  { models: { teacher }, tokens, positions }: TrainingProgramOptions,
  target: Learner,
): HeadInput {
  if (target === "student") {
    return { hidden, weight: learner.weight, ...(learner.adapted ? { adapted: learner.adapted } : {}) };
  }
  const head = traceHead(graph, "teacher", teacher.model, tokens, { length: positions });
  return headInput({ hidden, ...head }, teacher.adaptsHead);
}

/** Final hidden states of what shapes learn from, over all micro-batches of the window. */
function hiddenState(
  graph: Graph,
  { tokens, accumulation, models }: TrainingProgramOptions,
  target: Learner,
): Tensor {
  const { hiddenSize } = models[target].model.config;
  return graph.state("full.hidden", [accumulation * tokens, hiddenSize], "f32", "program");
}

function lossState(graph: Graph, name: string): Tensor {
  return graph.state(name, [1], "f32", "program");
}

function addLoss(graph: Graph, state: string, weighted: Tensor): void {
  const sum = sumRows(reshape(weighted, [weighted.dim(0), 1]));
  accumulate(lossState(graph, state), sum, graph.scalar("accumulate"));
}

function traceBalance(
  graph: Graph,
  i: number,
  { trainables: { layout } }: TrainingProgramOptions,
  { balance }: OneForAll,
): void {
  const full = lossState(graph, ONE_FOR_ALL.loss(0));
  const own = lossState(graph, RUNNING);
  const factor = pointwise(
    [full, own],
    (l0, l) => min(max(l0!.abs().div(max(l!.abs(), SMALLEST)), balance.min), balance.max),
  );
  assign(lossState(graph, ONE_FOR_ALL.loss(i)), [own], (_, l) => l!);
  const kept = assign(lossState(graph, ONE_FOR_ALL.factor(i)), [factor], (_, f) => f!);
  const flat = (name: "gradients" | "shapeGradients") =>
    graph.state(FLAT[name], [layout.total], "f32", "adapter and optimiser");
  for (let at = 0; at < layout.total; at += PIECE) {
    const piece = (name: "gradients" | "shapeGradients") =>
      part(flat(name), at, [Math.min(PIECE, layout.total - at)]);
    assign(piece("gradients"), [piece("shapeGradients"), kept], (sum, g, f) => sum!.add(g!.mul(f!)));
  }
}
