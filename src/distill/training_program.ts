/**
 * The program of a run: blocks `microBatch`, `update`, `evaluate` and, but for a cached teacher, `evaluateTeacher` over one set of
 * weights and states.
 *
 * @module
 */
import type { KernelFamily } from "../gpu/description.ts";
import { ModelContext } from "../models/context.ts";
import { decoder, head } from "../models/llama.ts";
import { gradients } from "../tensor/differentiate.ts";
import { max, min, stepScalar } from "../tensor/expr/mod.ts";
import type { Graph, Tensor } from "../tensor/graph.ts";
import { accumulate } from "../tensor/ops/accumulate.ts";
import { fill } from "../tensor/ops/fill.ts";
import { pointwise } from "../tensor/ops/pointwise.ts";
import { sumRows } from "../tensor/ops/sum_axis.ts";
import { reshape } from "../tensor/ops/views.ts";
import { Program } from "../tensor/plan.ts";
import type { Attach } from "./attach.ts";
import { chunkedLoss, type HeadInput, lossSums } from "./head.ts";
import { labelInput } from "./measure.ts";
import type { Model } from "./models.ts";
import { LOSS_SUMS, type LossSet, type Objective } from "./objective.ts";
import type { ParameterLayout } from "./parameters.ts";
import { streamPrompts } from "./prompt_features.ts";
import type { Balance, Learner } from "./recipe.ts";
import { streamInputs } from "./stream.ts";
import { cachedInputs } from "./teacher_rows.ts";
import type { Trainables } from "./trainables.ts";
import { type OptimiserSettings, traceUpdate } from "./update_block.ts";

/** The choices of a plan that change the last digits of results: kept in the manifest, and used again on resume. */
export interface FrozenPlan {
  /** Tokens in a micro-batch, rounded up to whole head chunks. */
  readonly tokens: number;
  readonly chunkRows: number;
  readonly recompute: boolean;
  readonly family: KernelFamily;
}

/** A model of the program, and how what is trained on it takes part. */
export interface TracedModel {
  readonly model: Model;
  /** Absent where the model stays as it is. */
  readonly attach?: Attach;
  /** Whether an adapter changes what the head computes. */
  readonly adaptsHead: boolean;
  /** The trained parameters of the head: its weight, or those of its adapter. */
  readonly headParameters: readonly string[];
}

/** What the program is made for. Everything here is part of the frozen plan of a run. */
export interface TrainingProgramOptions {
  readonly models: Readonly<Record<Learner, TracedModel>>;
  /** Tokens in a micro-batch, T; a multiple of `chunkRows`. */
  readonly tokens: number;
  /** Rows of the head at a time. */
  readonly chunkRows: number;
  /** Rows of the rotary table: one more than the largest position. */
  readonly positions: number;
  readonly objective: Objective;
  readonly trainables: Trainables;
  readonly recompute: boolean;
  readonly optimiser: OptimiserSettings;
}

/** Traces all blocks. */
export function trainingProgram(options: TrainingProgramOptions): Program {
  const program = new Program();
  const reached = traceMicroBatch(program.block("microBatch"), options);
  traceUpdate(program.block("update"), options.trainables, options.optimiser, reached);
  traceEvaluation(
    program.block("evaluate"),
    "student",
    options.objective.evaluation,
    LOSS_SUMS.evaluate,
    options,
  );
  // A cached teacher has been measured when the cache was made, and is no part of the program.
  if (options.objective.target) return program;
  traceEvaluation(
    program.block("evaluateTeacher"),
    "teacher",
    options.objective.crossEntropy,
    LOSS_SUMS.teacher,
    options,
  );
  return program;
}

/** Adds gradients up in the flat buffer: the first of a micro-batch onto what `keep` leaves of the one before. */
class GradientSums {
  readonly #graph: Graph;
  readonly #layout: ParameterLayout;
  /** The parameters that got one. */
  readonly written = new Set<string>();

  constructor(graph: Graph, layout: ParameterLayout) {
    this.#graph = graph;
    this.#layout = layout;
  }

  add(name: string, gradient: Tensor): void {
    const keep = this.written.has(name) ? 1 : this.#graph.scalar("keep");
    accumulate(this.#layout.view(this.#graph, "gradients", name), gradient, keep);
    this.written.add(name);
  }
}

/** The models of one block, each traced when it is first asked for. */
class BlockModels {
  /** The trained parameters that were used, by name. */
  readonly parameters = new Map<string, Tensor>();
  readonly #graph: Graph;
  readonly #options: TrainingProgramOptions;
  /** Where gradients go; undefined in evaluation. */
  readonly #sums: GradientSums | undefined;
  readonly #sides = new Map<Learner, HeadInput>();

  constructor(graph: Graph, options: TrainingProgramOptions, sums?: GradientSums) {
    this.#graph = graph;
    this.#options = options;
    this.#sums = sums;
  }

  side(name: Learner): HeadInput {
    let side = this.#sides.get(name);
    if (!side) this.#sides.set(name, side = this.#trace(name));
    return side;
  }

  #trace(name: Learner): HeadInput {
    const graph = this.#graph;
    const { models, tokens, positions, recompute } = this.#options;
    const { model, attach, adaptsHead, headParameters } = models[name];
    const { config } = model;
    const sums = this.#sums;
    const training = sums !== undefined;
    return graph.within(name, () => {
      const inputs = streamInputs(graph, tokens);
      const prompt = () => streamPrompts(graph, model, inputs.tokens);
      const ctx = new ModelContext(graph, name, inputs, model.specs, {
        ...attach?.(graph, (p) => this.#parameter(p), training, prompt),
        recompute: training && recompute && attach !== undefined,
      });
      return {
        hidden: decoder(ctx, config, positions),
        weight: ctx.weight(model.headWeight(), [config.vocabularySize, config.hiddenSize]),
        ...(adaptsHead ? { adapted: (x) => head(ctx, config, x) } : {}),
        ...(training
          ? {
            trained: headParameters.map((p) => ({
              tensor: this.#parameter(p),
              addGradient: (gradient) => sums.add(p, gradient),
            })),
          }
          : {}),
      };
    });
  }

  #parameter(name: string): Tensor {
    const { trainables } = this.#options;
    let view = this.parameters.get(name);
    if (view) return view;
    view = trainables.view(this.#graph, name);
    if (trainables.layout.has(name)) this.parameters.set(name, view);
    return view;
  }
}

/** Traces the losses of one pass and adds their sums up. */
function tracePass(
  graph: Graph,
  models: BlockModels,
  learner: Learner,
  set: LossSet,
  sums: string,
  { objective, tokens, chunkRows }: TrainingProgramOptions,
  training: boolean,
): Tensor | undefined {
  const target = set.needsCache
    ? cachedInputs(graph, tokens, objective.target!)
    : set.needsTarget
    ? models.side(learner === "student" ? "teacher" : "student")
    : undefined;
  const losses = objective.rowLosses(set, graph);
  const { values, weighted } = chunkedLoss(
    graph,
    models.side(learner),
    target,
    labelInput(graph, tokens, losses),
    losses,
    chunkRows,
    training,
  );
  lossSums(values, graph.state(sums, [losses.valueCount], "f32", "program"), graph.scalar("keep"));
  return weighted;
}

function traceEvaluation(
  graph: Graph,
  learner: Learner,
  set: LossSet,
  sums: string,
  options: TrainingProgramOptions,
): void {
  tracePass(graph, new BlockModels(graph, options), learner, set, sums, options, false);
}

/** Gives the names of the parameters whose gradients it writes. */
function traceMicroBatch(graph: Graph, options: TrainingProgramOptions): Set<string> {
  const { tokens, objective, trainables } = options;
  const gradientSums = new GradientSums(graph, trainables.layout);
  const models = new BlockModels(graph, options, gradientSums);
  // The token mean over the accumulation window: N counts the supervised positions of all its micro-batches.
  const seed = fill(graph, [tokens], graph.scalar("oneOverTokens"));
  const plain = new Map<Learner, Tensor>();
  const seeds = objective.passes.map(({ learner, balance, sums, ...set }): [Tensor, Tensor] => {
    const weighted = tracePass(graph, models, learner, set, sums, options, true)!;
    if (!balance) {
      plain.set(learner, weighted);
      return [weighted, seed];
    }
    const weight = `${set.names[0]}.weight`;
    return [weighted, balanced(weighted, plain.get(learner)!, seed, weight, balance)];
  });
  const names = [...models.parameters.keys()];
  const found = gradients(graph, seeds, [...models.parameters.values()]);
  found.forEach((gradient, i) => gradient && gradientSums.add(names[i]!, gradient));
  return gradientSums.written;
}

/**
 * The seed of a loss L that shall have the size of another, L_0, times its weight w: `seed` times w L_0 / L, a constant in the
 * gradient (L_0 / L as AmoebaLLM, arXiv 2411.10606, scales the losses of sub-networks; weight and bound are ours). `own` is w L of each
 * position.
 */
function balanced(
  own: Tensor,
  reference: Tensor,
  seed: Tensor,
  weight: string,
  { max: bound }: Balance,
): Tensor {
  const sum = (rows: Tensor) => sumRows(reshape(rows, [rows.dim(0), 1]));
  return pointwise([seed, sum(reference), sum(own)], (s, l0, l) => {
    const factor = stepScalar(weight).mul(l0!.abs()).div(max(l!.abs(), SMALLEST));
    return s!.mul(min(factor, bound));
  });
}

/** Keeps a loss that has vanished from being divided by. */
const SMALLEST = 1e-30;
