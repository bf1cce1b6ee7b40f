/**
 * Making a model smaller: searching for the layers, heads and channels that it can do without, and writing what is left.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { dirname } from "@std/path";
import { InputError } from "../base/errors.ts";
import { modelIdentity } from "../distill/inputs/identity.ts";
import { Model } from "../distill/inputs/models.ts";
import { isTaken, unreadable } from "../formats/files.ts";
import { openCalibration } from "./depth/calibration.ts";
import { narrowingOf } from "../distill/inputs/cut_model.ts";
import type { WidthCut } from "../distill/inputs/width_cut.ts";
import { checkDepthGoal } from "./depth/depth_search.ts";
import { measuredSearch } from "./depth/measured_search.ts";
import { without } from "./depth/subsets.ts";
import { checkRatio } from "./width/flap.ts";
import { measuredWidth } from "./width/measured_width.ts";
import type { ShrinkOptions, Shrunk } from "./shrunk.ts";
import { writeShrunk } from "./written_shape.ts";

/**
 * Searches for the layers to keep, then for the heads and channels of those, and writes the smaller model or its shape.
 *
 * @throws {InputError} if the model, the data or the goal do not do, or something is at the place of an output
 */
export async function shrinkModel(options: ShrinkOptions): Promise<Shrunk> {
  await checkOutputs(options);
  const { goal, width } = options;
  const model = await Model.open(options.model, { category: "weights" });
  try {
    const { architecture } = model;
    if (goal) checkDepthGoal(goal, architecture.config.layers);
    if (width) {
      checkRatio(width.ratio);
      narrowingOf(architecture, model.path);
    }
    const data = await openCalibration(model, {
      ...options.data,
      questions: options.metric === "accuracy",
    });
    const identity = await modelIdentity(model);
    const depth = goal ? await measuredSearch({ model, identity }, data, { ...options, goal }) : undefined;
    const kept = depth?.findings.plan.kept ?? without(architecture.config.layers, []);
    const narrowed = width ? await measuredWidth(model, kept, data, { ...options, width }) : undefined;
    const shrunk: Shrunk = {
      model: {
        ...{ path: model.path, identity, layers: architecture.config.layers },
        parameters: architecture.parameterCount,
      },
      parameters: await parametersOf(model.path, kept, narrowed?.cut),
      data: {
        ...{ files: options.data.files, samples: data.samples.length },
        tokens: (depth ?? narrowed)!.tokens,
        ...(data.questions ? { questions: data.questions.length } : {}),
      },
      ...(depth ? { findings: depth.findings, cache: depth.cache } : {}),
      ...(narrowed ? { width: narrowed } : {}),
      warnings: [...data.warnings, ...narrowed?.warnings ?? []],
    };
    await writeShrunk(shrunk, options);
    return shrunk;
  } finally {
    model.close();
  }
}

/** Of the model that is left, as it would be written. */
async function parametersOf(path: string, layers: readonly number[], width?: WidthCut): Promise<number> {
  const left = await Model.open(path, { category: "weights", layers, width });
  left.close();
  return left.architecture.parameterCount;
}

async function checkOutputs({ output, shape }: ShrinkOptions): Promise<void> {
  for (const path of [output, shape]) {
    if (path !== undefined && await isTaken(path)) {
      throw new InputError("is already there", { where: path, hint: "Choose another name, or remove it." });
    }
  }
  if (shape === undefined) return;
  const folder = dirname(shape);
  const info = await Deno.stat(folder).catch((error) => {
    throw unreadable(folder, error);
  });
  if (!info.isDirectory) throw new InputError("is not a folder", { where: folder });
}
