/**
 * The program of a run: blocks `microBatch`, `update`, `evaluate` and `evaluateTeacher` over one set of weights and states.
 *
 * @module
 */
import type { KernelFamily } from "../gpu/description.ts";
import { type Graph, type Tensor } from "../tensor/graph.ts";
import { gradients } from "../tensor/differentiate.ts";
import { accumulate } from "../tensor/ops/accumulate.ts";
import { adamw } from "../tensor/ops/adamw.ts";
import { fill } from "../tensor/ops/fill.ts";
import { gradientNorm } from "../tensor/ops/norms.ts";
import { Program } from "../tensor/plan.ts";
import { type LinearHook, ModelContext, type StreamInputs } from "../models/context.ts";
import { decoder } from "../models/llama.ts";
import { chunkedLoss, type HeadInput, lossSums, type RowLosses } from "./head.ts";
import { labelInput, traceLearnerLosses } from "./measure.ts";
import type { Model } from "./models.ts";
import { FLAT, type ParameterLayout } from "./parameters.ts";
import { streamInputs } from "./stream.ts";

/** The choices of a plan that change the last digits of results: kept in the manifest, and used again on resume. */
export interface FrozenPlan {
  /** Tokens in a micro-batch, rounded up to whole head chunks. */
  readonly tokens: number;
  readonly chunkRows: number;
  readonly recompute: boolean;
  readonly family: KernelFamily;
}

/** What the program is made for. Everything here is part of the frozen plan of a run. */
export interface TrainingProgramOptions {
  readonly teacher: Model;
  readonly student: Model;
  /** Tokens in a micro-batch, T; a multiple of `chunkRows`. */
  readonly tokens: number;
  /** Rows of the head at a time. */
  readonly chunkRows: number;
  /** Rows of the rotary table: one more than the largest position. */
  readonly positions: number;
  /** Losses of the objective, given a graph for its step scalars. */
  readonly losses: (graph: Graph) => RowLosses;
  /** Losses that are measured on held-out samples. */
  readonly evaluation: (graph: Graph) => RowLosses;
  /** Cross-entropy alone, for the teacher's own held-out loss. */
  readonly crossEntropy: (graph: Graph) => RowLosses;
  readonly parameters: ParameterLayout;
  /** Adds the adapter to the student's linear layers. `training` is false in evaluation: no dropout. */
  readonly attach: (graph: Graph, parameter: (name: string) => Tensor, training: boolean) => LinearHook;
  readonly recompute: boolean;
  readonly optimiser: OptimiserSettings;
  /** Learning-rate ratio of each optimiser group. */
  readonly groupRatio: (group: string) => number;
  readonly weightDecay: (group: string) => number;
}

/** AdamW's numbers that do not change from step to step. */
export interface OptimiserSettings {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** Largest global gradient norm; 0 is no clipping. */
  readonly clip: number;
}

/** Names of the states that hold sums of losses. */
export const LOSS_SUMS = {
  train: "losses.train",
  evaluate: "losses.evaluate",
  teacher: "losses.teacher",
} as const;

/** Traces all blocks. */
export function trainingProgram(options: TrainingProgramOptions): Program {
  const program = new Program();
  const block = (name: string, trace: (graph: Graph) => void) => {
    const graph = program.block(name);
    trace(graph);
  };
  block("microBatch", (graph) => traceMicroBatch(graph, options));
  block("update", (graph) => traceUpdate(graph, options));
  block("evaluate", (graph) => {
    const { values, count } = traceLosses(graph, options, options.evaluation(graph), undefined, false);
    lossSums(values, graph.state(LOSS_SUMS.evaluate, [count], "f32", "program"), graph.scalar("keep"));
  });
  block("evaluateTeacher", (graph) => {
    traceLearnerLosses(
      graph,
      "teacher",
      options.teacher,
      options.crossEntropy(graph),
      options,
      LOSS_SUMS.teacher,
    );
  });
  return program;
}

function hidden(
  graph: Graph,
  name: string,
  model: Model,
  inputs: StreamInputs,
  positions: number,
  options: { onLinear?: LinearHook; recompute?: boolean } = {},
): HeadInput {
  return graph.within(name, () => {
    const ctx = new ModelContext(graph, name, inputs, model.specs, options);
    const { vocabularySize, hiddenSize } = model.config;
    return {
      hidden: decoder(ctx, model.config, positions),
      weight: ctx.weight(model.headWeight(), [vocabularySize, hiddenSize]),
    };
  });
}

function traceLosses(
  graph: Graph,
  options: TrainingProgramOptions,
  losses: RowLosses,
  parameters: Map<string, Tensor> | undefined,
  training: boolean,
) {
  const { teacher, student, tokens, chunkRows, positions } = options;
  const inputs = streamInputs(graph, tokens);
  const target = losses.needsTarget ? hidden(graph, "teacher", teacher, inputs, positions) : undefined;
  const views = parameters ?? new Map<string, Tensor>();
  const parameter = (name: string) => {
    let view = views.get(name);
    if (!view) views.set(name, view = options.parameters.view(graph, "parameters", name));
    return view;
  };
  const learner = hidden(graph, "student", student, inputs, positions, {
    onLinear: options.attach(graph, parameter, training),
    recompute: training && options.recompute,
  });
  const { values, weighted } = chunkedLoss(
    graph,
    learner,
    target,
    labelInput(graph, tokens),
    losses,
    chunkRows,
    training,
  );
  return { values, weighted, count: losses.valueCount };
}

function traceMicroBatch(graph: Graph, options: TrainingProgramOptions): void {
  const parameters = new Map<string, Tensor>();
  const { values, weighted, count } = traceLosses(graph, options, options.losses(graph), parameters, true);
  const keep = graph.scalar("keep");
  lossSums(values, graph.state(LOSS_SUMS.train, [count], "f32", "program"), keep);
  // The token mean over the accumulation window: N counts the supervised positions of all its micro-batches.
  const seed = fill(graph, [options.tokens], graph.scalar("oneOverTokens"));
  const names = [...parameters.keys()];
  const found = gradients(graph, [[weighted!, seed]], [...parameters.values()]);
  found.forEach((gradient, i) => {
    if (gradient) accumulate(options.parameters.view(graph, "gradients", names[i]!), gradient, keep);
  });
}

function traceUpdate(graph: Graph, options: TrainingProgramOptions): void {
  const { parameters, optimiser, groupRatio, weightDecay } = options;
  const flat = (name: keyof typeof FLAT) =>
    graph.state(FLAT[name], [parameters.total], "f32", "adapter and optimiser");
  const norm = gradientNorm(flat("gradients"));
  const { clip, ...rest } = optimiser;
  for (const group of parameters.groups) {
    adamw(flat("parameters"), flat("gradients"), flat("m"), flat("v"), norm, {
      ...rest,
      ...(clip > 0 ? { clip } : {}),
      first: group.offset,
      count: group.count,
      learningRateRatio: groupRatio(group.name),
      weightDecay: weightDecay(group.name),
    });
  }
  graph.output("norm", norm);
}
