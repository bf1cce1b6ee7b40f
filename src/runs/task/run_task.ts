/**
 * Does a task in a run's folder, and says what happens as events.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { count } from "../../base/units.ts";
import type { RunResult } from "../../distill/export/exports.ts";
import type { RunHost } from "../../distill/run/events.ts";
import { removeUnfinishedFolders, writeTextAtomically } from "../../formats/files.ts";
import { exactLinearAlgebra } from "../../linalg/host.ts";
import { leftOutLines, writeResidualAdapter } from "../../merge/residual/extract.ts";
import { mergeModels } from "../../merge/engine/merge_models.ts";
import { writeResidual } from "../../merge/residual/residual.ts";
import { shrinkModel } from "../../shape/shrink.ts";
import { TASK_STEPS } from "./run_recipe.ts";
import {
  mergeRecipeOf,
  type MergeTask,
  type ResidualTask,
  type ShrinkTask,
  type Task,
  TASK_OUTPUTS,
} from "./task.ts";

/** What was found and is worth keeping beside the files; JSON. */
type Findings = Readonly<Record<string, unknown>>;

/**
 * Does a task. What an earlier attempt left is begun anew; a shrink does not measure again what it has measured.
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
  const work = new Work(host);
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
        linalg: exactLinearAlgebra,
        signal: work.signal,
        onPlan: ({ notes }) => work.note(notes),
        onProgress: ({ tensors, tensorsTotal, bytes, bytesTotal }) =>
          work.progress(bytes, bytesTotal, `${tensors} of ${tensorsTotal} tensors`),
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
      signal: work.signal,
      onProgress: (done: number, total: number, tensor: string) => work.progress(done, total, tensor),
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

  shrink: async (task: ShrinkTask, { folder, registry, emit }, work) => {
    const { contextLength, limit, mask, endToken, layers, width } = task;
    work.stage("shrink", "reading the model and the samples");
    const shrunk = await shrinkModel({
      model: task.model,
      data: {
        files: [task.data].flat(),
        ...(contextLength === undefined ? {} : { contextLength }),
        ...(limit === undefined ? {} : { limit }),
        ...(mask === undefined ? {} : { mask }),
        ...(endToken === undefined ? {} : { endToken }),
      },
      metric: task.metric,
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
      cacheFolder: join(folder, "evaluations"),
      registry,
      signal: work.signal,
      pictured: "shapes",
      onStage: (message) => work.stage("shrink", message),
      onTokens: () => work.hear(),
      onProgress: ({ done, total, kept }) => work.progress(done, total, `layers ${kept.join(", ")}`),
      output: join(folder, TASK_OUTPUTS.model),
      shape: join(folder, TASK_OUTPUTS.shape),
    });
    for (const { code, message } of shrunk.warnings) emit({ type: "warning", code, message });
    const { model, findings: depth, width: narrowed, data, parameters, shapes } = shrunk;
    const findings = {
      parameters,
      ...(shapes ? { shapes } : {}),
      model: { identity: model.identity, layers: model.layers, parameters: model.parameters },
      data: { samples: data.samples, tokens: data.tokens },
      ...(depth ? { depth } : {}),
      ...(narrowed
        ? { width: { ...narrowed.goal, ...narrowed.cut, full: narrowed.full, values: narrowed.values } }
        : {}),
    };
    await writeTextAtomically(join(folder, "shrink.json"), JSON.stringify(findings, null, 1) + "\n");
    if (depth) {
      const { kept, rank, value } = depth.plan;
      work.stage(
        "found",
        `layers ${kept.join(", ")}: ${task.metric} ${value}, place ${rank} of ${depth.evaluated}`,
      );
    }
    return { paths: { merged: TASK_OUTPUTS.model, shape: TASK_OUTPUTS.shape }, findings };
  },
};

/** Tells how far a task is, and hears whether it is to stop. */
class Work {
  readonly #host: RunHost;
  readonly #stop = new AbortController();
  #told = -1;
  #lastBeat = 0;

  constructor(host: RunHost) {
    this.#host = host;
  }

  /** Aborted when the run is to stop. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  /**
   * Each hundredth of the work is told once, so that the log of a run stays short.
   *
   * @throws what {@linkcode signal} was aborted with
   */
  progress(done: number, total: number, message: string): void {
    this.#hear();
    const step = Math.min(TASK_STEPS, Math.floor(TASK_STEPS * done / Math.max(1, total)));
    if (step <= this.#told) return this.#beat();
    this.#told = step;
    this.#host.emit({ type: "progress", step, message });
  }

  /** Looks whether it is to stop where nothing is told of how far it is. */
  hear(): void {
    this.#hear();
    this.#beat();
  }

  stage(stage: string, message: string): void {
    this.#hear();
    this.#host.emit({ type: "stage", stage, message });
  }

  note(notes: readonly string[]): void {
    for (const message of notes) this.#host.emit({ type: "warning", code: "note", message });
  }

  /** A sign of life a second. */
  #beat(): void {
    const now = performance.now();
    if (now - this.#lastBeat < 1000) return;
    this.#lastBeat = now;
    this.#host.emit({ type: "heartbeat" });
  }

  #hear(): void {
    if (this.#host.control() === "stop") this.#stop.abort();
    this.signal.throwIfAborted();
  }
}
