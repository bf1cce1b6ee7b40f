/**
 * Making a model narrower, and measuring what that costs on the text that it was chosen by.
 *
 * @module
 */
import { Model } from "../../distill/inputs/models.ts";
import { type Gpu, openGpu } from "../../gpu/device.ts";
import type { Registry } from "../../registry/registry.ts";
import { type Calibration, calibrationSizes } from "../depth/calibration.ts";
import type { SubsetValues } from "../depth/evaluation_cache.ts";
import { type DepthMetric, measureSubset } from "../depth/metrics.ts";
import { SubsetEvaluator } from "../depth/subset_evaluator.ts";
import { SubsetProgram } from "../depth/subset_program.ts";
import { without } from "../depth/subsets.ts";
import { shrinkWidth, type ShrinkWidthOptions, type WidthShrink } from "./shrink_width.ts";

/** How much of a model's width stays, and how that is chosen. */
export type WidthGoal = Omit<ShrinkWidthOptions, "onProgress">;

/** How the width is cut, and what is measured. */
export interface MeasuredWidth {
  readonly width: WidthGoal;
  readonly metric: DepthMetric;
  readonly registry: Registry;
  /** Told what is being done now. */
  readonly onStage?: (message: string) => void;
}

/** What stays, and what it costs: means over the supervised tokens of the calibration samples. */
export interface WidthFindings extends WidthShrink {
  readonly goal: WidthGoal;
  /** Of the whole model: all layers, as wide as they are. */
  readonly full: SubsetValues;
  /** Of what is left. */
  readonly values: SubsetValues;
  /** Supervised tokens. */
  readonly tokens: number;
}

/**
 * Chooses and measures.
 *
 * @param model The whole model
 * @param layers Those of it that are kept
 * @throws {InputError} as {@linkcode shrinkWidth} does, or if no token is supervised
 */
export async function measuredWidth(
  model: Model,
  layers: readonly number[],
  data: Calibration,
  { width, metric, registry, onStage = () => {} }: MeasuredWidth,
): Promise<WidthFindings> {
  const gpu = await openGpu();
  try {
    const sizes = calibrationSizes(data, model.config.vocabularySize, gpu.description);
    const evaluating = <T>(
      of: Model,
      fn: (evaluator: SubsetEvaluator) => Promise<T>,
      full?: Float32Array[],
    ) => withEvaluator(gpu, of, registry, sizes, data, fn, full);
    const all = (of: Model) => without(of.config.layers, []);
    onStage("measuring the whole model");
    // Of samples the divergence is measured whatever is asked for: it costs a second run of the head.
    const measured = metric === "accuracy" ? metric : "kl";
    const whole = await evaluating(model, async (evaluator) => ({
      full: await measureSubset(evaluator, data, measured, all(model)),
      hidden: metric === "accuracy" ? undefined : await evaluator.fullHidden(),
      tokens: evaluator.supervised,
    }));
    onStage("looking at the inputs of its layers");
    const chosen = await withModel(
      await Model.open(model.path, { category: "weights", layers }),
      (kept) => shrinkWidth(gpu, kept, data.samples, width),
    );
    onStage("measuring what is left");
    const values = await withModel(
      await Model.open(model.path, { category: "weights", layers, width: chosen.cut }),
      (narrow) =>
        evaluating(
          narrow,
          (evaluator) => measureSubset(evaluator, data, measured, all(narrow)),
          whole.hidden,
        ),
    );
    const parameters = { ...chosen.parameters, full: model.architecture.parameterCount };
    return { ...chosen, parameters, goal: width, full: whole.full, values, tokens: whole.tokens };
  } finally {
    gpu.destroy();
  }
}

async function withModel<T>(model: Model, fn: (model: Model) => Promise<T>): Promise<T> {
  try {
    return await fn(model);
  } finally {
    model.close();
  }
}

/** @param full Final hidden states of the model that divergences are from; its own when absent */
async function withEvaluator<T>(
  gpu: Gpu,
  model: Model,
  registry: Registry,
  sizes: SubsetProgram["sizes"],
  data: Calibration,
  fn: (evaluator: SubsetEvaluator) => Promise<T>,
  full?: Float32Array[],
): Promise<T> {
  const program = await SubsetProgram.create(gpu, model, registry, sizes);
  try {
    return await fn(new SubsetEvaluator(program, model.config.layers, data.samples, full));
  } finally {
    program.destroy();
  }
}
