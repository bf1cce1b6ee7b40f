/**
 * The program of a run: blocks `microBatch`, `update`, `evaluate` and, but for a cached teacher, `evaluateTeacher` over one set of
 * weights and states.
 *
 * @module
 */
import { gradients } from "../../tensor/differentiate.ts";
import { stepScalar } from "../../tensor/expr/mod.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { add } from "../../tensor/ops/combine.ts";
import { fill } from "../../tensor/ops/fill.ts";
import { maskRows } from "../../tensor/ops/mask_rows.ts";
import { pointwise } from "../../tensor/ops/pointwise.ts";
import { reshape } from "../../tensor/ops/views.ts";
import { Program } from "../../tensor/plan.ts";
import type { ModelFeatureLoss } from "../objective/feature_losses.ts";
import { chunkedLoss } from "../objective/chunked_loss.ts";
import { balanced } from "../objective/balanced.ts";
import { lossSums } from "../objective/loss_sums.ts";
import { LOSS_SUMS, type LossSet } from "../objective/loss_sets.ts";
import type { Balance, Learner } from "../recipe/recipe.ts";
import { BlockModels, GradientSums, type TrainingProgramOptions } from "./block_models.ts";
import { labelInput } from "./measure.ts";
import { traceShapes, traceTarget } from "./one_for_all.ts";
import { sampleInputs } from "./sample_inputs.ts";
import { traceStreamedTeacher } from "./streamed_teacher.ts";
import { traceUpdate } from "./update_block.ts";

/** Traces all blocks. */
export function trainingProgram(options: TrainingProgramOptions): Program {
  const program = new Program();
  const reached = traceMicroBatch(program.block("microBatch"), options);
  if (options.streamed) traceStreamedTeacher(program, options.streamed, options);
  if (options.oneForAll) traceShapes(program, options, options.oneForAll);
  traceUpdate(program.block("update"), options.trainables, options.optimiser, reached);
  traceEvaluation(
    program.block("evaluate"),
    "student",
    options.objective.evaluation,
    LOSS_SUMS.evaluate,
    options,
    options.features,
  );
  // A cached teacher has been measured when the cache was made, and is no part of the program.
  if (options.objective.isStored) return program;
  traceEvaluation(
    program.block("evaluateTeacher"),
    "teacher",
    options.objective.crossEntropy,
    LOSS_SUMS.teacher,
    options,
  );
  return program;
}

/** Traces the losses of one pass and adds their sums up, at the beginning of the state `sums`. */
function tracePass(
  graph: Graph,
  models: BlockModels,
  learner: Learner,
  set: LossSet,
  sums: Tensor,
  { objective, tokens, chunkRows }: TrainingProgramOptions,
  training: boolean,
): Tensor | undefined {
  const target = models.target(learner, set);
  const losses = objective.rowLosses(set, graph);
  const { values, weighted } = chunkedLoss(graph, {
    learner: models.side(learner),
    ...labelInput(graph, tokens, losses),
    ...{ target, losses, chunkRows, gradient: training },
  });
  lossSums(values, sums, graph.scalar("accumulate"), { first: 0, count: losses.valueCount });
  return weighted;
}

/** Traces a loss over inner values and adds its sum into element `first` of a state; returns the loss of each position that counts. */
function traceFeature(
  graph: Graph,
  models: BlockModels,
  feature: ModelFeatureLoss,
  { state, first }: { state: Tensor; first: number },
  { tokens, objective }: TrainingProgramOptions,
): Tensor {
  const stream = sampleInputs(graph, tokens);
  const rows = feature.trace(
    graph,
    (model) => models.side(model).taps,
    (name) => models.parameter(name),
    stream,
    tokens,
  );
  const { masks } = objective;
  const counted = masks.needed
    ? maskRows(rows, graph.input("tokenMasks", [tokens], "i32"), feature.term.tokenMask)
    : maskRows(rows, stream.supervised);
  lossSums(reshape(counted, [1, tokens]), state, graph.scalar("accumulate"), { first, count: 1 });
  return counted;
}

function sumsState(graph: Graph, name: string, count: number): Tensor {
  return graph.state(name, [count], "f32", "program");
}

function traceEvaluation(
  graph: Graph,
  learner: Learner,
  set: LossSet,
  sums: string,
  options: TrainingProgramOptions,
  features: readonly ModelFeatureLoss[] = [],
): void {
  const { oneForAll } = options;
  const models = new BlockModels(graph, options, undefined, oneForAll && { widths: oneForAll.widths });
  const count = set.names.length;
  const state = sumsState(graph, sums, count + features.length);
  tracePass(graph, models, learner, set, state, options, false);
  features.forEach((f, i) => traceFeature(graph, models, f, { state, first: count + i }, options));
}

/** A part of the objective: its weighted value at each position, and whose gradient it makes. */
interface ObjectivePart {
  readonly learner: Learner;
  readonly weighted: Tensor;
  /** With the name of its weight. */
  readonly balance?: Balance & { readonly weight: string };
}

/** Gives the names of the parameters whose gradients it writes. */
function traceMicroBatch(graph: Graph, options: TrainingProgramOptions): Set<string> {
  const { tokens, trainables } = options;
  const gradientSums = new GradientSums(graph, trainables.layout);
  const models = new BlockModels(graph, options, gradientSums);
  // The token mean over the accumulation window: N counts the supervised positions of all its micro-batches.
  const seed = fill(graph, [tokens], graph.scalar("oneOverTokens"));
  const parts = traceParts(graph, models, options);
  const plain = (learner: Learner) =>
    parts.filter((p) => p.learner === learner && !p.balance).map((p) => p.weighted).reduce(add);
  const references = new Map<Learner, Tensor>();
  const seeds = parts.map(({ learner, weighted, balance }): [Tensor, Tensor] => {
    if (!balance) return [weighted, seed];
    const reference = references.get(learner) ?? plain(learner);
    references.set(learner, reference);
    return [weighted, balanced(weighted, reference, seed, balance.weight, balance)];
  });
  if (options.oneForAll) {
    traceTarget(graph, models, plain("student"), options, options.oneForAll);
  }
  const names = [...models.parameters.keys()];
  const found = gradients(graph, seeds, [...models.parameters.values()]);
  found.forEach((gradient, i) => gradient && gradientSums.add(names[i]!, gradient));
  return gradientSums.written;
}

/** The losses of the objective, pass by pass. */
function traceParts(graph: Graph, models: BlockModels, options: TrainingProgramOptions): ObjectivePart[] {
  const balancing = (balance: Balance | undefined, name: string) =>
    balance ? { balance: { ...balance, weight: `${name}.weight` } } : {};
  const overLogits = options.objective.passes.map(({ learner, balance, sums, ...set }): ObjectivePart => {
    const state = sumsState(graph, sums, set.names.length);
    const weighted = tracePass(graph, models, learner, set, state, options, true)!;
    return { learner, weighted, ...balancing(balance, set.names[0]!) };
  });
  const overInnerValues = options.features.map((feature): ObjectivePart => {
    const { name, balance } = feature.term;
    const state = sumsState(graph, feature.sums, 1);
    const rows = traceFeature(graph, models, feature, { state, first: 0 }, options);
    const weighted = pointwise([rows], (l) => l!.mul(stepScalar(`${name}.weight`)));
    return { learner: "student", weighted, ...balancing(balance, name) };
  });
  return [...overLogits, ...overInnerValues];
}
