/**
 * Cutting a model as a run.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { count } from "../../base/units.ts";
import type { RunResult } from "../../distill/export/exports.ts";
import type { RunHost } from "../../distill/run/events.ts";
import { exists, writeTextAtomically } from "../../formats/files.ts";
import { shrinkModel } from "../../shape/shrink.ts";
import type { ShrinkOptions, Shrunk } from "../../shape/shrunk.ts";
import { type ShrinkTask, TASK_OUTPUTS } from "./task.ts";
import type { Work } from "./work.ts";

/**
 * Searches for what stays, and writes the smaller model and its shape. What has been measured of the same model on the same data is not
 * measured again.
 */
export async function shrink(
  task: ShrinkTask,
  { folder, registry, emit, evaluations }: RunHost,
  work: Work,
): Promise<{ paths: RunResult["paths"]; findings: Readonly<Record<string, unknown>> }> {
  const { layers, width, untimed = false } = task;
  work.stage("shrink", "reading the model and the samples");
  work.divide({
    ...(layers === undefined ? {} : { depth: 6 }),
    ...(width === undefined ? {} : { width: 2 }),
    ...(untimed ? {} : { speeds: 2 }),
  });
  let [measured, remembered] = [0, 0];
  const shrunk = await shrinkModel({
    ...shrinkSettings(task),
    model: task.model,
    cacheFolder: await evaluationsFolder(folder, evaluations),
    registry,
    signal: work.signal,
    pictured: untimed ? "shapes" : "speeds",
    onStage: (message) => work.stage("shrink", message),
    onTokens: (done, total) =>
      work.progress({
        ...{ done, total, tokens: done },
        message: `inputs of layers, ${count(done)} of ${count(total)} tokens`,
      }, "width"),
    onProgress({ done, total, kept, reused, tokens }) {
      if (reused) remembered++;
      else measured += tokens;
      work.progress({
        ...{ done, total, remembered, tokens: measured },
        message: `layers ${kept.join(", ")}`,
      }, "depth");
    },
    onTimed: (done, total) => work.progress({ done, total, message: "timing shapes" }, "speeds"),
    output: join(folder, TASK_OUTPUTS.model),
    shape: join(folder, TASK_OUTPUTS.shape),
  });
  for (const { code, message } of shrunk.warnings) emit({ type: "warning", code, message });
  const findings = findingsOf(shrunk);
  await writeTextAtomically(join(folder, "shrink.json"), JSON.stringify(findings, null, 1) + "\n");
  if (shrunk.findings) {
    const { plan: { kept, rank, value }, evaluated } = shrunk.findings;
    work.stage("found", `layers ${kept.join(", ")}: ${task.metric} ${value}, place ${rank} of ${evaluated}`);
  }
  return { paths: { merged: TASK_OUTPUTS.model, shape: TASK_OUTPUTS.shape }, findings };
}

/** What a task asks for. */
export function shrinkSettings(
  { data, contextLength, limit, mask, endToken, metric, layers, width, ...task }: ShrinkTask,
): Pick<ShrinkOptions, "data" | "metric" | "goal" | "width"> {
  return {
    data: {
      files: [data].flat(),
      ...(contextLength === undefined ? {} : { contextLength }),
      ...(limit === undefined ? {} : { limit }),
      ...(mask === undefined ? {} : { mask }),
      ...(endToken === undefined ? {} : { endToken }),
    },
    metric,
    ...(layers === undefined ? {} : {
      goal: { search: task.search, layers, keepLast: task.keepLast, beamWidth: task.beam },
    }),
    ...(width === undefined ? {} : {
      width: {
        ratio: width,
        structure: task.structure,
        compensation: task.compensation,
        faithful: task.faithful,
      },
    }),
  };
}

function findingsOf({ model, findings: depth, width, data, parameters, shapes, timedOn }: Shrunk) {
  return {
    parameters,
    ...(shapes ? { shapes } : {}),
    ...(timedOn === undefined ? {} : { timedOn }),
    model: { identity: model.identity, layers: model.layers, parameters: model.parameters },
    data: { samples: data.samples, tokens: data.tokens },
    ...(depth ? { depth } : {}),
    ...(width ? { width: { ...width.goal, ...width.cut, full: width.full, values: width.values } } : {}),
  };
}

/** Where evaluations are kept: in the run's own folder where it has begun to keep them there, or has no other place. */
async function evaluationsFolder(folder: string, shared: string | undefined): Promise<string> {
  const own = join(folder, "evaluations");
  return shared === undefined || await exists(own) ? own : shared;
}
