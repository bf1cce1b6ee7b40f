/**
 * What can be told of a search before it measures anything.
 *
 * @module
 */
import { familiesOf } from "../registry/families.ts";
import type { DataWarning } from "../distill/inputs/data_warnings.ts";
import { Model } from "../distill/inputs/models.ts";
import type { DeviceDescription } from "../gpu/description.ts";
import type { Registry } from "../registry/registry.ts";
import type { Plan } from "../tensor/plan.ts";
import { calibrationSizes, openCalibration } from "./depth/calibration.ts";
import { mostEvaluations } from "./depth/depth_search.ts";
import { planSubsets } from "./depth/subset_program.ts";
import { checkedGoals } from "./shrink.ts";
import type { ShrinkOptions } from "./shrunk.ts";

/** A search that has not begun. */
export interface ShrinkPreview {
  readonly model: { readonly layers: number; readonly parameters: number };
  /** Of what is left; absent where the width is cut, which is known once it is measured. */
  readonly parameters?: number;
  readonly data: {
    readonly samples: number;
    readonly tokens: number;
    readonly supervisedTokens: number;
    readonly questions?: number;
  };
  /** Evaluations of subsets at most, where layers are searched for. */
  readonly evaluations?: number;
  readonly warnings: readonly DataWarning[];
}

/**
 * Opens the model and the data, and checks all that can be checked; with a device, plans the program that measures too.
 *
 * @throws {InputError} a goal that cannot be reached, or data that do not do
 */
export async function previewShrink(
  { model: path, data: files, metric, goal, width, registry }:
    & Pick<ShrinkOptions, "model" | "data" | "metric" | "goal" | "width">
    & { readonly registry: Registry },
  device?: DeviceDescription,
): Promise<ShrinkPreview & { readonly plan?: Plan }> {
  const model = await Model.open(path, { category: "weights" }, familiesOf(registry));
  try {
    const { architecture } = model;
    const { config: { layers, vocabularySize }, parameterCount } = architecture;
    const [whole] = checkedGoals(model, [goal], [width]);
    const data = await openCalibration(model, { ...files, questions: metric === "accuracy" });
    const count = (of: (sample: typeof data.samples[number]) => number) =>
      data.samples.reduce((sum, sample) => sum + of(sample), 0);
    // The first token of a sample is predicted from nothing.
    const supervisedTokens = count(({ supervised }) => supervised.subarray(1).reduce((a, b) => a + b, 0));
    // Which layers will stay is not known yet; where they differ in size, these stand for them.
    const firstLayers = whole && Array.from({ length: whole.layers }, (_, i) => i);
    const left = firstLayers ? architecture.with({ layers: firstLayers }).parameterCount : parameterCount;
    return {
      model: { layers, parameters: parameterCount },
      ...(width ? {} : { parameters: left }),
      data: {
        samples: data.samples.length,
        tokens: count(({ ids }) => ids.length),
        supervisedTokens,
        ...(data.questions ? { questions: data.questions.length } : {}),
      },
      ...(whole ? { evaluations: mostEvaluations(whole, layers) } : {}),
      warnings: data.warnings,
      ...(device === undefined ? {} : {
        plan: planSubsets(model, registry, calibrationSizes(data, vocabularySize, device), device).planned,
      }),
    };
  } finally {
    model.close();
  }
}
