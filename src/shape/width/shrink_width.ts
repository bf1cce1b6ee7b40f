/**
 * Making a model narrower: from calibration text to the heads and channels that stay.
 *
 * @module
 */
import { cutWidths, narrowingOf } from "../../distill/inputs/cut_model.ts";
import type { DataWarning } from "../../distill/inputs/data_warnings.ts";
import type { Model } from "../../distill/inputs/models.ts";
import { cutsNothing, emptiedLayers, type WidthCut } from "../../distill/inputs/width_cut.ts";
import { float32ToHalf, halfToFloat32 } from "../../formats/dtype.ts";
import type { Gpu } from "../../gpu/device.ts";
import type { EncodedSample } from "../../text/encode.ts";
import {
  checkRatio,
  type InputStatistics,
  keepBestOfAll,
  keepBestOfEach,
  type KeptUnits,
  type LayerStatistics,
  unitCosts,
  type WidthStructure,
} from "./flap.ts";
import { measureInputs } from "./input_statistics.ts";
import { compensate, scoreUnits } from "./output_projections.ts";

/** How a model is made narrower. */
export interface ShrinkWidthOptions {
  /** Part of the parameters of heads and channels that stays (of their number in each layer where it is uniform): above 0, at most 1. */
  readonly ratio: number;
  /** `global` when absent. */
  readonly structure?: WidthStructure;
  /** Whether biases stand for what is cut; they do when absent. */
  readonly compensation?: boolean;
  /** Follows AmoebaLLM's code where it differs from its paper; docs/shapes.md says where. Off when absent. */
  readonly faithful?: boolean;
  /** Tokens measured so far; what it throws ends the measuring. */
  readonly onProgress?: (tokens: number, total: number) => void;
  /** Of the model's inputs over the samples, where they are known: measured when absent. */
  readonly statistics?: readonly LayerStatistics[];
}

/** What stays of a model. */
export interface WidthShrink {
  readonly cut: WidthCut;
  /** Tokens that it was measured on. */
  readonly calibrationTokens: number;
  /** Lowest score that stays; absent where it is uniform. */
  readonly threshold?: number;
  readonly parameters: WidthParameters;
  readonly warnings: readonly DataWarning[];
}

/** Numbers of parameters, biases of compensation left out. */
export interface WidthParameters {
  readonly full: number;
  /** What computes: the kept heads and channels, and all that is not cut. */
  readonly kept: number;
  /** What a file holds, layers filled up with zeros to the widest. */
  readonly stored: number;
}

/**
 * Finds what of a model's width stays. The model may have lost layers already; what it has is measured.
 *
 * @param samples Calibration text
 * @throws {InputError} for a ratio out of range, a family that cannot be cut, or text that does not do
 *
 * @example
 * ```ts ignore
 * const { cut } = await shrinkWidth(gpu, model, samples, { ratio: 0.75 });
 * const narrow = await Model.open(path, { category: "weights", width: cut });
 * ```
 */
export async function shrinkWidth(
  gpu: Gpu,
  model: Model,
  samples: readonly EncodedSample[],
  options: ShrinkWidthOptions,
): Promise<WidthShrink> {
  const { ratio, structure = "global", compensation = true, faithful = false, onProgress } = options;
  checkRatio(ratio);
  const { projections } = narrowingOf(model.architecture, model.path);
  const statistics = options.statistics ?? await measureInputs(gpu, model, samples, {
    faithful,
    ...(onProgress ? { onProgress } : {}),
  });
  const scores = await scoreUnits(model, statistics);
  const costs = unitCosts(model.config, projections.mlpInputs.length);
  const global = structure === "global" ? keepBestOfAll(scores, costs, ratio, faithful) : undefined;
  const { groups, channels } = global ?? keepBestOfEach(scores, ratio);
  const kept = { groups, channels };
  const biases = compensation && !cutsNothing(kept, model.config)
    ? { compensation: await compensate(model, faithful ? statistics.map(roundedMeans) : statistics, kept) }
    : {};
  return {
    cut: { ...kept, ...biases },
    calibrationTokens: statistics[0]!.mlp.count,
    ...(global ? { threshold: global.threshold } : {}),
    parameters: parametersOf(model, kept),
    warnings: warningsOf(model, kept, statistics[0]!.mlp.count),
  };
}

/** AmoebaLLM's code keeps means in half precision. */
function roundedMeans({ attention, mlp }: LayerStatistics): LayerStatistics {
  const rounded = ({ mean, ...rest }: InputStatistics): InputStatistics => ({
    ...rest,
    mean: Float64Array.from(halfToFloat32(float32ToHalf(Float32Array.from(mean)))),
  });
  return { attention: rounded(attention), mlp: rounded(mlp) };
}

function parametersOf({ architecture, path }: Model, kept: KeptUnits): WidthParameters {
  const { config, tensors, family, parameterCount: full } = architecture;
  const { projections } = narrowingOf(architecture, path);
  const { queries, keys, values, mlpInputs } = projections;
  const costs = unitCosts(config, mlpInputs.length);
  const biases = (...parts: string[]) =>
    parts.filter((part) => tensors.has(`${family.names.layers}.0.${part}.bias`)).length;
  const heads = biases(queries) * config.attentionHeads / config.keyValueHeads + biases(keys, values);
  const [group, channel] = [costs.group + heads * config.headDim, costs.channel + biases(...mlpInputs)];
  const lost = (byLayer: readonly (readonly number[])[], of: number) =>
    byLayer.reduce((sum, { length }) => sum + of - length, 0);
  const stored = cutWidths(architecture, kept);
  const filler = (config.keyValueHeads - stored.keyValueHeads) * group +
    (config.intermediateSize - stored.intermediateSize) * channel;
  return {
    full,
    kept: full - lost(kept.groups, config.keyValueHeads) * group -
      lost(kept.channels, config.intermediateSize) * channel,
    stored: full - config.layers * filler,
  };
}

function warningsOf({ config }: Model, kept: KeptUnits, tokens: number): DataWarning[] {
  const { attention, mlp } = emptiedLayers(kept);
  const warnings: DataWarning[] = [];
  if (tokens < config.intermediateSize) {
    warnings.push({
      code: "calibration_short",
      message:
        `the calibration text has ${tokens} tokens for ${config.intermediateSize} channels a layer: more text chooses more steadily`,
    });
  }
  for (const [layers, what] of [[attention, "attention"], [mlp, "MLP"]] as const) {
    if (layers.length === 0) continue;
    const which = layers.length === 1 ? `layer ${layers[0]} keeps` : `layers ${layers.join(", ")} keep`;
    warnings.push({
      code: "layer_emptied",
      message:
        `${which} nothing of the ${what}: a higher width, or the structure uniform, keeps some everywhere`,
    });
  }
  return warnings;
}
