/**
 * Making a model narrower, and measuring what that costs on the text that it was chosen by.
 *
 * @module
 */
import { Model } from "../../distill/inputs/models.ts";
import { openGpu } from "../../gpu/device.ts";
import type { Registry } from "../../registry/registry.ts";
import { type Calibration, calibrationSizes } from "../depth/calibration.ts";
import type { SubsetValues } from "../depth/evaluation_cache.ts";
import { type DepthMetric, measureSubset } from "../depth/metrics.ts";
import { type SubsetEvaluator, withEvaluator } from "../depth/subset_evaluator.ts";
import { without } from "../depth/subsets.ts";
import { measureInputs } from "./input_statistics.ts";
import { rememberedStatistics } from "./statistics_cache.ts";
import { shrinkWidth, type ShrinkWidthOptions, type WidthShrink } from "./shrink_width.ts";

/** How much of a model's width stays, and how that is chosen. */
export type WidthGoal = Omit<ShrinkWidthOptions, "onProgress" | "statistics">;

/** How the width is cut, and what is measured. */
export interface MeasuredWidth {
  readonly metric: DepthMetric;
  readonly registry: Registry;
  /** Folder of statistics that have been measured; see {@linkcode rememberedStatistics}. */
  readonly cacheFolder: string;
  /** Told what is being done now. */
  readonly onStage?: (message: string) => void;
  /** Told on how many tokens of how many the inputs have been looked at. */
  readonly onTokens?: (tokens: number, total: number) => void;
  /** Aborting it ends the measuring. */
  readonly signal?: AbortSignal;
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
 * Chooses and measures, for one width after another.
 *
 * @param model The whole model, with the hash of its weights and config
 * @param layers Those of it that are kept
 * @throws {InputError} as {@linkcode shrinkWidth} does, or if no token is supervised
 */
export async function measuredWidths(
  { model, identity }: { readonly model: Model; readonly identity: string },
  layers: readonly number[],
  data: Calibration,
  widths: readonly WidthGoal[],
  { metric, registry, cacheFolder, onStage = () => {}, onTokens, signal }: MeasuredWidth,
): Promise<WidthFindings[]> {
  const gpu = await openGpu();
  try {
    const sizes = calibrationSizes(data, model.config.vocabularySize, gpu.description);
    const evaluating = <T>(
      of: Model,
      fn: (evaluator: SubsetEvaluator) => Promise<T>,
      full?: Float32Array[],
    ) => withEvaluator(gpu, of, registry, sizes, data.samples, fn, { full, signal });
    const all = (of: Model) => without(of.config.layers, []);
    onStage("measuring the whole model");
    // Of samples the divergence is measured whatever is asked for: it costs a second run of the head.
    const measured = metric === "accuracy" ? metric : "kl";
    const whole = await evaluating(model, async (evaluator) => ({
      full: await measureSubset(evaluator, data, measured, all(model)),
      hidden: metric === "accuracy" ? undefined : await evaluator.fullHidden(),
      tokens: evaluator.supervised,
    }));
    const { further } = model.architecture;
    const found: WidthFindings[] = [];
    for (const width of widths) {
      const { faithful = false } = width;
      onStage("looking at the inputs of its layers");
      const chosen = await withModel(
        await Model.open(model.path, { category: "weights", layers }, further),
        async (kept) => {
          const origin = { model: identity, layers, data: data.identity, faithful };
          const statistics = await rememberedStatistics(
            cacheFolder,
            origin,
            () =>
              measureInputs(gpu, kept, data.samples, {
                faithful,
                onProgress(tokens, total) {
                  onTokens?.(tokens, total);
                  signal?.throwIfAborted();
                },
              }),
          );
          return await shrinkWidth(gpu, kept, data.samples, { ...width, statistics });
        },
      );
      onStage("measuring what is left");
      const values = await withModel(
        await Model.open(model.path, { category: "weights", layers, width: chosen.cut }, further),
        (narrow) =>
          evaluating(
            narrow,
            (evaluator) => measureSubset(evaluator, data, measured, all(narrow)),
            whole.hidden,
          ),
      );
      const parameters = { ...chosen.parameters, full: model.architecture.parameterCount };
      found.push({ ...chosen, parameters, goal: width, full: whole.full, values, tokens: whole.tokens });
    }
    return found;
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
