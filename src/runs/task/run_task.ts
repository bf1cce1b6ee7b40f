/**
 * Does a task in a run's folder, and says what happens as events.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { familiesOf } from "../../registry/families.ts";
import { count } from "../../base/units.ts";
import type { RunResult } from "../../distill/export/exports.ts";
import type { RunHost } from "../../distill/run/events.ts";
import { removeUnfinishedFolders } from "../../formats/files.ts";
import { exactLinearAlgebra } from "../../linalg/host.ts";
import { writeAdaptedModel } from "../../merge/adapters/adapted_model.ts";
import { writeMergedAdapter } from "../../merge/adapters/adapters.ts";
import { extractLora, leftOutLines, writeResidualAdapter } from "../../merge/residual/extract.ts";
import { mergeModels } from "../../merge/engine/merge_models.ts";
import { writeResidual } from "../../merge/residual/residual.ts";
import { cacheTeacher } from "./cache_task.ts";
import { evaluateModels } from "./evaluate_task.ts";
import { exportOfRun } from "./export_task.ts";
import { TASK_STEPS } from "./run_recipe.ts";
import { shrink } from "./shrink_task.ts";
import {
  type ExtractTask,
  type MergeAdaptersTask,
  mergeRecipeOf,
  type MergeTask,
  type ResidualTask,
  type Task,
  TASK_OUTPUTS,
} from "./task.ts";
import { Work } from "./work.ts";

/** What was found and is worth keeping beside the files; JSON. */
type Findings = Readonly<Record<string, unknown>>;

/**
 * Does a task. What an earlier attempt left is begun anew; a shrink or an evaluation does not measure again what it has measured.
 *
 * @throws {InputError} models that do not fit each other or the task
 */
export async function runTask(task: Task, host: RunHost): Promise<RunResult> {
  const begun = performance.now();
  if (host.resume) host.emit({ type: "rewind", step: -1 });
  for (const name of Object.values(TASK_OUTPUTS)) {
    await Deno.remove(join(host.folder, name), { recursive: true }).catch((error) => {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    });
  }
  await removeUnfinishedFolders(host.folder);
  using work = new Work(host);
  const seconds = () => (performance.now() - begun) / 1000;
  try {
    const { paths, findings } = await DO[task.task](task as never, host, work);
    return {
      ...NOTHING_TRAINED,
      status: "succeeded",
      steps: TASK_STEPS,
      paths,
      findings,
      seconds: seconds(),
    };
  } catch (error) {
    if (!work.signal.aborted) throw error;
    // Nothing half-written stays: it begins again when someone asks for it.
    return { ...NOTHING_TRAINED, status: "paused", steps: 0, paths: {}, seconds: seconds() };
  }
}

/** What the result of a run says of training. */
const NOTHING_TRAINED = {
  heldOut: { teacher: null, before: null, after: null, gapClosed: null, tokens: 0 },
  peakBytes: { planned: 0, allocated: 0 },
} as const;

type Done = { paths: RunResult["paths"]; findings: Findings };

const DO: { readonly [name in Task["task"]]: (task: never, host: RunHost, work: Work) => Promise<Done> } = {
  merge: async (task: MergeTask, { folder, registry, emit }, work) => {
    work.stage("merge", "merging");
    const { output: _, models: parents, ...result } = await mergeModels(
      mergeRecipeOf(task),
      join(folder, TASK_OUTPUTS.model),
      {
        method: (id) => registry.get("merge", id),
        families: familiesOf(registry),
        linalg: exactLinearAlgebra,
        signal: work.signal,
        onPlan: ({ notes }) => work.note(notes),
        onProgress: ({ tensors, tensorsTotal, bytes, bytesTotal }) =>
          work.progress({
            ...{ done: bytes, total: bytesTotal, bytes },
            message: `${tensors} of ${tensorsTotal} tensors`,
          }),
      },
    );
    emit({
      type: "stage",
      stage: "merged",
      message: `${result.tensors} tensors, ${count(result.parameters)} parameters in ${result.dtype}`,
    });
    const sha256 = parents.map((parent) => parent.sha256);
    return { paths: { merged: TASK_OUTPUTS.model }, findings: { ...result, parents: sha256 } };
  },

  residual: async (
    { task: _, base, instruct, newBase, rank, dtype, ...options }: ResidualTask,
    host,
    work,
  ) => {
    const models = { base, instruct, newBase };
    const how = {
      ...options,
      ...{ signal: work.signal, families: familiesOf(host.registry) },
      // Values are counted as they are in f32.
      onProgress: (done: number, total: number, message: string) =>
        work.progress({ done, total, message, bytes: 4 * done }),
    };
    if (rank !== undefined) {
      work.stage("residual", "decomposing the residual");
      const output = join(host.folder, TASK_OUTPUTS.adapter);
      const { notes, ...findings } = await writeResidualAdapter(models, output, { ...how, rank });
      work.note(notes);
      for (const message of leftOutLines(findings)) work.stage("left-out", message);
      return { paths: { adapter: TASK_OUTPUTS.adapter }, findings };
    }
    work.stage("residual", "adding the residual");
    const { notes, ...findings } = await writeResidual(models, join(host.folder, TASK_OUTPUTS.model), {
      ...how,
      ...(dtype === undefined ? {} : { dtype }),
    });
    work.note(notes);
    return { paths: { merged: TASK_OUTPUTS.model }, findings };
  },

  shrink,

  evaluate: evaluateModels,

  cache: cacheTeacher,

  extract: async ({ base, tuned, rank }: ExtractTask, { folder, registry }, work) => {
    work.stage("extract", "decomposing the difference");
    const { notes, ...findings } = await extractLora(base, tuned, join(folder, TASK_OUTPUTS.adapter), {
      ...{ rank, signal: work.signal, families: familiesOf(registry) },
      onProgress: (done, total, message) => work.progress({ done, total, message, bytes: 4 * done }),
    });
    work.note(notes);
    for (const message of leftOutLines(findings)) work.stage("left-out", message);
    return { paths: { adapter: TASK_OUTPUTS.adapter }, findings };
  },

  export: exportOfRun,

  "merge-adapters": async (
    { adapters, method, rank, into, dtype }: MergeAdaptersTask,
    { folder, registry },
    work,
  ) => {
    work.stage("merge-adapters", "reading the adapters");
    const merge = {
      ...{ method, rank },
      adapters: adapters.map(({ adapter: path, weight }) => ({ path, weight })),
    };
    const merged = into === undefined
      ? await writeMergedAdapter(merge, join(folder, TASK_OUTPUTS.adapter))
      : await writeAdaptedModel(into, merge, join(folder, TASK_OUTPUTS.model), {
        ...(dtype === undefined ? {} : { dtype }),
        ...{ signal: work.signal, families: familiesOf(registry) },
        onProgress: (done, total, message) => work.progress({ done, total, message, bytes: 4 * done }),
      });
    work.note(merged.notes);
    work.progress({ done: 1, total: 1, message: `${merged.modules.length} modules` });
    const { errors, total } = merged;
    return {
      paths: into === undefined ? { adapter: TASK_OUTPUTS.adapter } : { merged: TASK_OUTPUTS.model },
      findings: {
        ...{ method, modules: merged.modules.length },
        ...(method === "svd" ? { byModule: errors, total } : {}),
      },
    };
  },
};
