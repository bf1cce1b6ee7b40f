/**
 * What the parts of one attempt at a run share: what it works with, whom it tells, how far it is.
 *
 * @module
 */
import type { Gpu } from "../../gpu/device.ts";
import type { Progress } from "../checkpoint/checkpoint.ts";
import type { RunResult } from "../export/exports.ts";
import { packingReport } from "../inputs/packing_report.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import type { SampleSet } from "../inputs/sample_sets.ts";
import type { DrawnShare } from "../../text/batch_stream.ts";
import type { RunMemory } from "../program/memory.ts";
import type { TrainingSetup } from "../program/plan_training.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { servedTeachers } from "../recipe/teachers.ts";
import type { FoundTeachers } from "../teacher/choose.ts";
import type { TeacherCache } from "../teacher/cache.ts";
import { gapClosed, type RunHost } from "./events.ts";

/** One attempt at a run. */
export class Attempt {
  readonly prepared: PreparedRun;
  readonly setup: TrainingSetup;
  readonly gpu: Gpu;
  readonly host: RunHost;
  /** Part of every checkpoint. */
  progress: Progress = {
    ...{ teacherLoss: null, beforeLoss: null, lastLoss: null, best: null, heldOutTokens: 0 },
    window: { sum: 0, count: 0, lowest: null },
    samples: [],
    seconds: 0,
  };
  /** The most bytes on the GPU that something was planned with. */
  plannedBytes = 0;
  /** What stands for the teacher, or the first of several, where the recipe wants it cached. */
  cache: TeacherCache | undefined;
  /** What several teachers were found to be, where each sample has one of them. */
  found: FoundTeachers | undefined;
  readonly #started: number;
  /** What has been drawn of each training set; empty where there is no list of them. */
  drawn: DrawnShare[] = [];
  /** Seconds of earlier attempts. */
  #earlier = 0;

  /** @param started When it began, by `performance.now()` */
  constructor(prepared: PreparedRun, setup: TrainingSetup, gpu: Gpu, host: RunHost, started: number) {
    [this.prepared, this.setup, this.gpu, this.host, this.#started] = [prepared, setup, gpu, host, started];
  }

  get recipe(): Recipe {
    return this.prepared.recipe;
  }

  /** Seconds of the run so far, those of earlier attempts with them. */
  get seconds(): number {
    return this.#earlier + (performance.now() - this.#started) / 1000;
  }

  /** Continues where a checkpoint was written. */
  restore(progress: Progress): void {
    this.progress = structuredClone(progress);
    this.#earlier = progress.seconds;
  }

  /** Whether to stop before training has begun. Nothing needs to be saved then. */
  stopAsked(): boolean {
    return this.host.control() === "stop";
  }

  /** Tells that a part of the work begins. */
  stage(stage: string, message: string): void {
    this.host.emit({ type: "stage", stage, message });
  }

  /** Tells what is going to be done. @param kernels Those that are others than stand first */
  tellPlan({ byCategory, total }: RunMemory, kernels: Readonly<Record<string, string>>): void {
    const { teachers, student, trainables } = this.setup;
    const { trainReport: report, heldOut, sets } = this.prepared;
    const { provider } = this.gpu;
    const served = new Set(servedTeachers(this.recipe.teacher).map(({ index }) => index));
    this.host.emit({
      type: "plan",
      adapterName: this.gpu.description.name,
      ...(provider === undefined || provider === "native" ? {} : { provider }),
      software: this.gpu.adapter.info.isFallbackAdapter,
      bytes: Object.fromEntries(byCategory),
      totalBytes: total,
      parameters: {
        // Nobody here knows how large models behind servers are.
        teacher: teachers.filter((_, i) => !served.has(i))
          .reduce((sum, { architecture }) => sum + architecture.parameterCount, 0),
        student: student.architecture.parameterCount,
        trainable: trainables.layout.trainable,
      },
      data: {
        trainSamples: report.samples,
        heldOutSamples: heldOut.length,
        trainTokens: report.tokens,
        supervisedTokens: report.supervisedTokens,
        packing: packingReport(this.prepared),
        ...(sets.train.length > 1
          ? { sets: sets.train.map((set) => ({ ...setSize(set), weight: set.weight })) }
          : {}),
        ...(sets.heldOut.length > 1 ? { heldOutSets: sets.heldOut.map(setSize) } : {}),
      },
      steps: this.recipe.train.steps,
      ...(Object.keys(kernels).length > 0 ? { kernels: { ...kernels } } : {}),
    });
  }

  /** What it ends with after so many steps. A run that is only paused has no loss afterwards, and has written nothing. */
  result(
    status: RunResult["status"],
    steps: number,
    after: number | null = null,
    paths: RunResult["paths"] = {},
  ): RunResult {
    const { teacherLoss: teacher, beforeLoss: before, heldOutTokens: tokens, sets = {} } = this.progress;
    const { bitsPerByte: bits } = this.progress;
    const compared = bits
      ? { ...bits, after: after === null ? null : bits.last }
      : { teacher, before, after };
    const heldOutSets = Object.entries(sets).map(([name, { teacher, before, last, tokens }]) => {
      const own = after === null ? null : last;
      return { name, teacher, before, after: own, gapClosed: gapClosed(teacher, before, own), tokens };
    });
    return {
      status,
      steps,
      heldOut: {
        ...{ teacher, before, after, tokens },
        gapClosed: gapClosed(compared.teacher, compared.before, compared.after),
      },
      ...(bits ? { bitsPerByte: { teacher: bits.teacher, before: bits.before, after: compared.after } } : {}),
      ...(heldOutSets.length > 0 ? { heldOutSets } : {}),
      ...(this.drawn.length > 0 ? { drawn: this.drawn } : {}),
      paths,
      peakBytes: { planned: this.plannedBytes, allocated: this.gpu.peakBytes },
      seconds: this.seconds,
    };
  }
}

function setSize({ name, report: { samples, tokens, supervisedTokens } }: SampleSet) {
  return { name, samples, tokens, supervisedTokens };
}

/** For JSON, which has no NaN. */
export function finite(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}

/** {@linkcode finite} of each. */
export function finiteAll(values: Readonly<Record<string, number>>): Record<string, number | null> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, finite(value)]));
}
