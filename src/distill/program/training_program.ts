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
import { type ChunkedLoss, chunkedLoss, targetLosses } from "../objective/chunked_loss.ts";
import { balanced } from "../objective/balanced.ts";
import { DRAWN_LOG_PROBABILITIES, importanceWeights, lossOfRows } from "../objective/importance.ts";
import { lossSums } from "../objective/loss_sums.ts";
import { tracePairs } from "../objective/pairs.ts";
import { LOSS_SUMS, type LossSet, type MeasuredLosses, SURPRISE, wholeSet } from "../objective/loss_sets.ts";
import type { GroupPass } from "../objective/groups/terms.ts";
import type { Balance, Learner } from "../recipe/recipe.ts";
import { traceAlignedTeacher, traceGroups } from "./aligned_groups.ts";
import { areParted, BlockModels, GradientSums, type TrainingProgramOptions } from "./block_models.ts";
import { labelInput } from "./metrics/measure.ts";
import { traceShapes, traceTarget } from "./shapes/one_for_all.ts";
import { PARTS, traceTaught } from "./sample_choice.ts";
import { sampleInputs } from "./fed/sample_inputs.ts";
import { traceStreamedTeacher } from "./streamed/streamed_teacher.ts";
import { traceUpdate } from "./update_block.ts";

/** Traces all blocks. */
export function trainingProgram(options: TrainingProgramOptions): Program {
  const program = new Program();
  program.compute = options.compute;
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
    options.objective.pairs,
  );
  // A cached teacher has been measured when the cache was made, and is no part of the program; but what several are together has not, unless
  // each sample has one of them and of some there is only a part.
  if (options.several ? areParted(options.several) : options.objective.isStored) return program;
  traceTeacher(program.block("evaluateTeacher"), options);
  return program;
}

/** Traces what is measured of the teacher: of several, of what they are together. */
function traceTeacher(graph: Graph, options: TrainingProgramOptions): void {
  const { objective: { crossEntropy: set }, several } = options;
  if (!several) {
    const only = { passes: [set], names: set.names };
    return traceEvaluation(graph, "teacher", only, LOSS_SUMS.teacher, options);
  }
  const { objective, tokens, chunkRows } = options;
  const target = new BlockModels(graph, options).together(several);
  const losses = objective.rowLosses(set, graph);
  const values = targetLosses(graph, {
    target,
    ...labelInput(graph, tokens, losses),
    ...{ losses, chunkRows },
  });
  lossSums(values, sumsState(graph, LOSS_SUMS.teacher, set.names.length), graph.scalar("accumulate"));
}

/**
 * Traces the losses of one pass and adds their sums up in the state `sums`, from element `at` on; returns those of each position. Where of
 * some teachers a part of the distribution is stored and of others there is all of it, the samples of either have a pass of their own, in
 * which those of the other count for nothing: together they are one.
 */
function tracePass(
  graph: Graph,
  models: BlockModels,
  learner: Learner,
  set: LossSet,
  sums: Tensor | undefined,
  options: TrainingProgramOptions,
  training: boolean,
  at = 0,
): ChunkedLoss {
  const isParted = set.needsCache && areParted(options.several);
  const parts = isParted
    ? [[set, PARTS.stored], [wholeSet(set), PARTS.whole]] as const
    : [[set, undefined]] as const;
  const made = parts.map(([own, part]) => traceRows(graph, models, learner, own, options, training, part));
  const values = made.map((one) => one.values).reduce(add);
  // Of pairs not the rows count, but what is made of them.
  if (sums) lossSums(values, sums, graph.scalar("accumulate"), { first: at, count: set.names.length });
  return { values, weighted: training ? made.map((one) => one.weighted!).reduce(add) : undefined };
}

/** Traces the losses of a set over the positions that a part of the labels counts. */
function traceRows(
  graph: Graph,
  models: BlockModels,
  learner: Learner,
  set: LossSet,
  { objective, tokens, chunkRows }: TrainingProgramOptions,
  training: boolean,
  part?: string,
): ChunkedLoss {
  const target = models.target(learner, set);
  const losses = objective.rowLosses(set, graph);
  return chunkedLoss(graph, {
    learner: models.side(learner),
    ...labelInput(graph, tokens, losses, part),
    ...{ target, losses, chunkRows, gradient: training },
  });
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
  addRows(graph, counted, state, first);
  return counted;
}

/** Adds the sum of a loss at each position, f32 [T], into element `first` of a state. */
function addRows(graph: Graph, rows: Tensor, state: Tensor, first: number): void {
  lossSums(reshape(rows, [1, rows.dim(0)]), state, graph.scalar("accumulate"), { first, count: 1 });
}

function sumsState(graph: Graph, name: string, count: number): Tensor {
  return graph.state(name, [count], "f32", "program");
}

function traceEvaluation(
  graph: Graph,
  learner: Learner,
  { passes, names }: Pick<MeasuredLosses, "passes" | "names">,
  sums: string,
  options: TrainingProgramOptions,
  features: readonly ModelFeatureLoss[] = [],
  pairs: readonly LossSet[] = [],
): void {
  const { oneForAll } = options;
  const models = new BlockModels(graph, options, undefined, oneForAll && { widths: oneForAll.widths });
  const count = names.length;
  if (learner === "teacher" && options.aligned) {
    const { objective, aligned, models: { teacher } } = options;
    const state = sumsState(graph, sums, count);
    const { vocabularySize } = teacher.model.config;
    traceAlignedTeacher(graph, models.side(learner), passes[0]!, state, objective, aligned, vocabularySize);
    return;
  }
  const groups = learner === "student" ? options.objective.groups : [];
  const beside = count + features.length + 2 * pairs.length;
  const state = sumsState(graph, sums, beside + groups.length);
  let at = 0;
  for (const set of passes) {
    tracePass(graph, models, learner, set, state, options, false, at);
    at += set.names.length;
  }
  features.forEach((f, i) => traceFeature(graph, models, f, { state, first: count + i }, options));
  pairs.forEach((set, i) => {
    const { values } = tracePass(graph, models, learner, set, undefined, options, false);
    const made = tracePairs(graph, lossOfRows(values, set, set.names[0]!), set.terms[0]!);
    const first = count + features.length + 2 * i;
    [made.values, made.accuracy].forEach((rows, j) => addRows(graph, rows, state, first + j));
  });
  groups.forEach((pass, i) =>
    tracePassOfGroups(graph, models, pass, { state, first: beside + i }, options, false)
  );
}

/** Traces a loss over groups of tokens; see {@linkcode traceGroups}. */
function tracePassOfGroups(
  graph: Graph,
  models: BlockModels,
  pass: GroupPass,
  place: { state: Tensor; first: number },
  { tokens, chunkRows, aligned }: TrainingProgramOptions,
  training: boolean,
): Tensor | undefined {
  const sides = { student: models.side("student"), teacher: models.side("teacher") };
  return traceGroups(graph, sides, pass, place, { tokens, chunkRows, aligned: aligned! }, training);
}

/** A part of the objective: its weighted value at each position, and whose gradient it makes. */
interface ObjectivePart {
  readonly learner: Learner;
  readonly weighted: Tensor;
  /** What positions are to be weighed by, where its pass makes it. */
  readonly importance?: Tensor;
  /** What the gradient of each position's value is multiplied by beside, f32 [T]. */
  readonly factor?: Tensor;
  /** With the name of its weight. */
  readonly balance?: Balance & { readonly weight: string };
}

/** Gives the names of the parameters whose gradients it writes. */
function traceMicroBatch(graph: Graph, options: TrainingProgramOptions): Set<string> {
  const { tokens, trainables } = options;
  const gradientSums = new GradientSums(graph, trainables.layout);
  const models = new BlockModels(graph, options, gradientSums);
  // The token mean over the accumulation window: N counts the supervised positions of all its micro-batches.
  const everywhere = fill(graph, [tokens], graph.scalar("oneOverTokens"));
  const parts = traceParts(graph, models, options);
  const importance = parts.flatMap((p) => p.importance ?? [])[0];
  const weighed = importance && pointwise([everywhere, importance], (s, w) => s!.mul(w!));
  const plain = (learner: Learner) =>
    parts.filter((p) => p.learner === learner && !p.balance).map((p) => p.weighted).reduce(add);
  const references = new Map<Learner, Tensor>();
  const ofGroups = options.objective.groups.map((pass): [Tensor, Tensor] => {
    const place = { state: sumsState(graph, pass.sums, 1), first: 0 };
    const weighted = tracePassOfGroups(graph, models, pass, place, options, true)!;
    return [weighted, fill(graph, weighted.shape, graph.scalar("oneOverTokens"))];
  });
  const seeds = parts.map(({ learner, weighted, balance, factor }): [Tensor, Tensor] => {
    const seed = factor
      ? pointwise([everywhere, factor], (s, f) => s!.mul(f!))
      : (learner === "student" && weighed) || everywhere;
    if (!balance) return [weighted, seed];
    const reference = references.get(learner) ?? plain(learner);
    references.set(learner, reference);
    return [weighted, balanced(weighted, reference, seed, balance.weight, balance)];
  });
  if (options.taught) traceTaught(graph, plain("student"), options.taught);
  if (options.oneForAll) {
    traceTarget(graph, models, plain("student"), options, options.oneForAll);
  }
  const names = [...models.parameters.keys()];
  const found = gradients(graph, [...seeds, ...ofGroups], [...models.parameters.values()]);
  found.forEach((gradient, i) => gradient && gradientSums.add(names[i]!, gradient));
  return gradientSums.written;
}

/** The losses of the objective, pass by pass. */
function traceParts(graph: Graph, models: BlockModels, options: TrainingProgramOptions): ObjectivePart[] {
  const balancing = (balance: Balance | undefined, name: string) =>
    balance ? { balance: { ...balance, weight: `${name}.weight` } } : {};
  const overLogits = options.objective.passes.map(
    ({ learner, balance, pairs, sums, ...set }): ObjectivePart => {
      const state = sumsState(graph, sums, set.names.length);
      if (pairs) {
        const { values, weighted } = tracePass(graph, models, learner, set, undefined, options, true);
        const made = tracePairs(graph, lossOfRows(values, set, pairs.name), pairs);
        addRows(graph, made.values, state, 0);
        return { learner, weighted: weighted!, factor: made.gradient };
      }
      const { values, weighted } = tracePass(graph, models, learner, set, state, options, true);
      return {
        ...{ learner, weighted: weighted!, ...balancing(balance, set.names[0]!) },
        ...(set.names.includes(SURPRISE)
          ? {
            importance: importanceWeights(
              lossOfRows(values, set, SURPRISE),
              graph.input(DRAWN_LOG_PROBABILITIES, [options.tokens], "f32"),
              options.importance!.max,
            ),
          }
          : {}),
      };
    },
  );
  const overInnerValues = options.features.map((feature): ObjectivePart => {
    const { name, balance } = feature.term;
    const state = sumsState(graph, feature.sums, 1);
    const rows = traceFeature(graph, models, feature, { state, first: 0 }, options);
    const weighted = pointwise([rows], (l) => l!.mul(stepScalar(`${name}.weight`)));
    return { learner: "student", weighted, ...balancing(balance, name) };
  });
  return [...overLogits, ...overInnerValues];
}
