/**
 * Making a model smaller: searching for the layers that it can do without, and writing what is left.
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
import { checkDepthGoal } from "./depth/depth_search.ts";
import { measuredSearch } from "./depth/measured_search.ts";
import type { ShrinkOptions, Shrunk } from "./shrunk.ts";
import { writeShrunk } from "./written_shape.ts";

/**
 * Searches for the layers to keep, and writes the smaller model or its shape.
 *
 * @throws {InputError} if the model, the data or the goal do not do, or something is at the place of an output
 */
export async function shrinkDepth(options: ShrinkOptions): Promise<Shrunk> {
  await checkOutputs(options);
  const model = await Model.open(options.model, { category: "weights" });
  try {
    checkDepthGoal(options.goal, model.config.layers);
    const data = await openCalibration(model, {
      ...options.data,
      questions: options.metric === "accuracy",
    });
    const identity = await modelIdentity(model);
    const { findings, tokens, cache } = await measuredSearch({ model, identity }, data, options);
    const { architecture } = model;
    const { plan } = findings;
    const shrunk: Shrunk = {
      model: {
        ...{ path: model.path, identity, layers: architecture.config.layers },
        parameters: architecture.parameterCount,
      },
      parameters: architecture.with({ layers: plan.kept.length }).parameterCount,
      data: {
        ...{ files: options.data.files, samples: data.samples.length, tokens },
        ...(data.questions ? { questions: data.questions.length } : {}),
      },
      ...{ findings, cache, warnings: data.warnings },
    };
    await writeShrunk(shrunk, options);
    return shrunk;
  } finally {
    model.close();
  }
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
