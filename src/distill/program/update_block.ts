/**
 * The block that ends an optimiser step: penalties, clipping, the optimiser, and what trainables do after it.
 *
 * @module
 */
import { gradients } from "../../tensor/differentiate.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { accumulate } from "../../tensor/ops/accumulate.ts";
import { adamw } from "../../tensor/ops/adamw.ts";
import { assign } from "../../tensor/ops/assign.ts";
import { add } from "../../tensor/ops/combine.ts";
import { fillConstant } from "../../tensor/ops/fill.ts";
import { clippingFactor, gradientNorm } from "../../tensor/ops/norms.ts";
import { stepScalar } from "../../tensor/expr/mod.ts";
import { part } from "../../tensor/ops/views.ts";
import { FLAT } from "../trained/parameters.ts";
import type { Trainables } from "../trained/trainables.ts";

/** AdamW's numbers that do not change from step to step. */
export interface OptimiserSettings {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** Largest global gradient norm; 0 is no clipping. */
  readonly clip: number;
  readonly weightDecay: number;
}

/**
 * Traces it. Its outputs are `norm`, f32 [2], and, where there are penalties, their sum `penalty`, f32 [1].
 *
 * @param reached Trained parameters whose gradients the micro-batches write
 */
export function traceUpdate(
  graph: Graph,
  trainables: Trainables,
  optimiser: OptimiserSettings,
  reached: ReadonlySet<string>,
): void {
  const { layout, states } = trainables;
  const penalty = tracePenalty(graph, trainables, reached);
  if (penalty) graph.output("penalty", penalty);
  const flat = (name: keyof typeof FLAT) =>
    graph.state(FLAT[name], [layout.total], "f32", "adapter and optimiser");
  const norm = gradientNorm(flat("gradients"));
  const { clip, weightDecay, ...rest } = optimiser;
  for (const group of layout.groups) {
    const settings = trainables.group(group.name);
    adamw(flat("parameters"), flat("gradients"), flat("m"), flat("v"), norm, {
      ...rest,
      ...(clip > 0 ? { clip } : {}),
      first: group.offset,
      count: group.count,
      learningRateRatio: settings.learningRateRatio ?? 1,
      weightDecay: settings.weightDecay === false ? 0 : weightDecay,
    });
  }
  graph.output("norm", norm);
  const clipping = clippingFactor(norm, clip > 0 ? clip : undefined);
  for (const { work } of trainables.parts) {
    work?.afterUpdate({
      parameter: (name) => trainables.view(graph, name),
      gradient: (name) => layout.view(graph, "gradients", name),
      state: (name) => states.view(graph, "states", name),
      clipping,
    });
  }
  traceCopy(graph, trainables);
}

/** What the copy of the student's parameters keeps of itself in a step, from 0 to 1; the rest are the parameters after the step. */
export const COPY_KEEPS = "copy.keeps";

/** Elements of a flat buffer that one kernel copies, so that its bindings fit every device. */
const PIECE = 2 ** 24;

/** copy = keeps * copy + (1 - keeps) * parameters: with 0 the parameters and with 1 the copy, bit for bit. */
function traceCopy(graph: Graph, { layout, copy }: Trainables): void {
  const { total } = copy;
  for (let at = 0; at < total; at += PIECE) {
    const piece = (name: "parameters" | "copy", size: number) =>
      part(graph.state(FLAT[name], [size], "f32", "adapter and optimiser"), at, [
        Math.min(PIECE, total - at),
      ]);
    const keeps = stepScalar(COPY_KEEPS);
    assign(
      piece("copy", total),
      [piece("parameters", layout.total)],
      (own, now) => own!.mul(keeps).add(now!.mul(keeps.mul(-1).add(1))),
    );
  }
}

/** Adds the gradients of all penalties to those of the window, and gives the sum of their values. */
function tracePenalty(
  graph: Graph,
  trainables: Trainables,
  reached: ReadonlySet<string>,
): Tensor | undefined {
  const views = new Map<string, Tensor>();
  const parameter = (name: string) => {
    if (!views.has(name)) views.set(name, trainables.view(graph, name));
    return views.get(name)!;
  };
  const penalties = trainables.parts.flatMap(({ work }) => work?.penalty(parameter) ?? []);
  if (penalties.length === 0) return undefined;
  const { layout } = trainables;
  const names = [...views.keys()].filter((name) => layout.has(name));
  const seed = fillConstant(graph, [1], 1);
  const found = gradients(graph, penalties.map((p) => [p, seed]), names.map(parameter));
  found.forEach((gradient, i) => {
    if (!gradient) return;
    const target = layout.view(graph, "gradients", names[i]!);
    if (reached.has(names[i]!)) accumulate(target, gradient, 1);
    // What no micro-batch writes still holds the step before.
    else assign(target, [gradient], (_, own) => own!);
  });
  return penalties.reduce((a, b) => add(a, b));
}
