/**
 * One attempt at a run: from a recipe to an adapter. Everything it has to say goes out as events; everything it leaves lies in the
 * run's folder.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { removeUnfinishedFolders } from "../../formats/files.ts";
import { type Gpu, openGpu } from "../../gpu/device.ts";
import type { Registry } from "../../registry/registry.ts";
import { BatchStream } from "../../text/batch_stream.ts";
import { runForm } from "../export/adapter_files.ts";
import { type CheckpointState, newestState, type Progress } from "../checkpoint/checkpoint.ts";
import { dataWarnings } from "../inputs/data_warnings.ts";
import { checkDivergence } from "./divergence_guard.ts";
import { gapClosed, type RunHost } from "./events.ts";
import { type RunResult } from "../export/exports.ts";
import { writeBase, writeResults } from "../export/exports.ts";
import type { Evaluation } from "../objective/monitors.ts";
import { checkHostMemory, runMemory } from "../program/memory.ts";
import { type PreparedRun, prepareRun } from "../inputs/prepare.ts";
import { checkPrompts } from "../program/prompt_features.ts";
import type { Learner, Recipe } from "../recipe/recipe.ts";
import { checkRecipePlugins } from "../recipe/plugins.ts";
import { RunCheckpoints } from "../checkpoint/run_checkpoints.ts";
import { runIdentity } from "./run_identity.ts";
import {
  generationBuffers,
  sampleBytes,
  teacherTexts,
  textSettings,
  writeSamples,
} from "../generate/samples.ts";
import { setUp } from "./set_up.ts";
import type { TeacherCache } from "../teacher/cache.ts";
import { openTeacherCache } from "../teacher/pass.ts";
import {
  type FrozenPlan,
  type PlannedTraining,
  planTraining,
  Trainer,
  type TrainingSetup,
} from "../program/trainer.ts";

/** Seconds that steps may wait before their numbers are fetched and shown. */
const REPORT_SECONDS = 1;

/**
 * Runs a recipe to its end, or to where `host.control()` asks to stop.
 *
 * @throws {InputError} on inputs that do not do, and on a resume with another recipe, model or plugin
 * @throws {DeviceError} without an adapter, or where memory does not suffice
 * @throws {DivergedError} if the loss becomes NaN or runs away; the last checkpoint stays
 */
export async function distillRun(recipe: Recipe, host: RunHost): Promise<RunResult> {
  const started = performance.now();
  const registry = host.registry as Registry;
  checkRecipePlugins(recipe, registry);
  host.emit({ type: "stage", stage: "load", message: "reading models and data" });
  const begun = host.resume ? await newestState(join(host.folder, CHECKPOINTS)) : undefined;
  const prepared = await prepareRun(recipe, begun);
  let gpu: Gpu | undefined;
  try {
    const setup = setUp(prepared, registry);
    checkPrompts([...prepared.train, ...prepared.heldOut], setup.adapter, setup.teacherAdapter);
    for (const message of origins(setup, registry)) host.emit({ type: "stage", stage: "plugins", message });
    for (const warning of dataWarnings(prepared)) host.emit({ type: "warning", ...warning });
    gpu = await openGpu();
    return await new Run(prepared, setup, gpu, host, started).run();
  } finally {
    prepared.close();
    gpu?.destroy();
  }
}

/** Which file or package each plugin of the run comes from; nothing of built-ins. */
function origins({ objective, adapter, teacherAdapter }: TrainingSetup, registry: Registry): string[] {
  const used = new Set([...objective.plugins, ...[adapter, teacherAdapter].flatMap((a) => a?.plugin ?? [])]);
  return [...used].flatMap((plugin) => {
    const module = registry.moduleOf(plugin);
    return module === undefined ? [] : [`${plugin.id} comes from ${module}`];
  });
}

/** Where in a run's folder they lie. */
const CHECKPOINTS = "checkpoints";

/** Someone asked to stop while the teacher's cache was being made. */
class StopAsked extends Error {}

/** Under which a checkpoint keeps the hash of the cache that the run trains on. */
const CACHE_IDENTITY = "teacher's cache";

class Run {
  readonly #prepared: PreparedRun;
  readonly #setup: TrainingSetup;
  readonly #gpu: Gpu;
  readonly #host: RunHost;
  readonly #started: number;
  readonly #checkpoints: RunCheckpoints;
  readonly #caches: string;
  #identity: Record<string, string> = {};
  #progress: Progress = {
    teacherLoss: null,
    beforeLoss: null,
    lastLoss: null,
    best: null,
    heldOutTokens: 0,
    window: { sum: 0, count: 0, lowest: null },
    samples: [],
    seconds: 0,
  };
  #plannedBytes = 0;
  #cache: TeacherCache | undefined;
  /** Seconds of earlier attempts. */
  #earlier = 0;
  #lastReport = performance.now();
  #stepsSinceReport = 0;

  constructor(prepared: PreparedRun, setup: TrainingSetup, gpu: Gpu, host: RunHost, started: number) {
    this.#prepared = prepared;
    this.#setup = setup;
    this.#gpu = gpu;
    this.#host = host;
    this.#started = started;
    this.#checkpoints = new RunCheckpoints(
      join(host.folder, CHECKPOINTS),
      setup.trainables,
      prepared.recipe.train.keepCheckpoints,
      (message) => host.emit({ type: "warning", code: "damaged_checkpoint", message }),
    );
    this.#caches = join(host.folder, "teacher-cache");
  }

  get #recipe(): Recipe {
    return this.#prepared.recipe;
  }

  async run(): Promise<RunResult> {
    for (const folder of [this.#host.folder, this.#checkpoints.folder, this.#caches]) {
      await removeUnfinishedFolders(folder);
    }
    this.#identity = await runIdentity(this.#prepared, this.#setup);
    const resumed = this.#host.resume
      ? await this.#checkpoints.latest(this.#host.resumeLimit, this.#identity, [CACHE_IDENTITY])
      : undefined;
    const samples = sampleBytes(this.#gpu.description, this.#prepared, this.#setup);
    const planned = planTraining(this.#setup, this.#gpu.description, resumed?.frozen, samples);
    const memory = runMemory(planned.plan, samples);
    this.#plannedBytes = memory.total;
    this.#announcePlan(memory.byCategory, memory.total);
    if (this.#gpu.adapter.info.isFallbackAdapter) {
      checkHostMemory(memory, this.#recipe, planned.frozen.recompute);
    }

    this.#stage("base", "writing the student's base");
    await writeBase(this.#host.folder, this.#prepared, { keep: resumed !== undefined });
    if (this.#stopAsked()) return this.#result("paused", resumed?.step ?? 0, null, {});
    try {
      await this.#openCache(planned.frozen, resumed);
      return await this.#main(planned, resumed);
    } catch (error) {
      if (error instanceof StopAsked) return this.#result("paused", resumed?.step ?? 0, null, {});
      throw error;
    } finally {
      this.#cache?.close();
    }
  }

  /** Opens the teacher's cache, or runs the teacher to make it. @throws {StopAsked} in the middle of that */
  async #openCache(frozen: FrozenPlan, resumed: CheckpointState | undefined): Promise<void> {
    const [gpu, prepared, setup] = [this.#gpu, this.#prepared, this.#setup];
    const texts = teacherTexts(gpu.description, prepared, setup);
    const opened = await openTeacherCache(gpu, prepared, setup, frozen, this.#caches, texts, {
      onSlice: () => {
        this.#host.emit({ type: "heartbeat" });
        if (this.#stopAsked()) throw new StopAsked();
      },
      onFound: (path, exists) => {
        const { train, heldOut } = prepared;
        const message = exists
          ? `using the teacher's cache ${path}`
          : `running the teacher over ${train.length + heldOut.length} samples`;
        this.#stage("cache", message);
      },
    });
    if (!opened) return;
    const { cache, plannedBytes } = opened;
    this.#cache = cache;
    this.#plannedBytes = Math.max(this.#plannedBytes, plannedBytes);
    this.#identity[CACHE_IDENTITY] = cache.identity;
    if (resumed) this.#checkpoints.checkIdentity(resumed, this.#identity, [CACHE_IDENTITY]);
  }

  async #main(planned: PlannedTraining, resumed: CheckpointState | undefined): Promise<RunResult> {
    const { train } = this.#recipe;
    const paused = () => this.#result("paused", resumed?.step ?? 0, null, {});
    this.#stage("compile", "uploading weights and compiling kernels");
    const trainer = await Trainer.create(this.#gpu, this.#setup, planned, {
      ...(this.#cache ? { cache: this.#cache } : {}),
      profile: this.#host.profile ?? false,
      onSlice: () => this.#host.emit({ type: "heartbeat" }),
      onProgress: () => this.#host.emit({ type: "heartbeat" }),
    });
    try {
      const stream = new BatchStream(this.#prepared.train, {
        tokensPerBatch: planned.frozen.tokens,
        seed: train.seed,
      });
      if (this.#stopAsked()) return paused();
      const step = await this.#begin(trainer, stream, resumed);
      if (step === undefined) return paused();
      await trainer.profile({ reset: true });
      const { done, stopped } = await this.#train(trainer, stream, step, planned.frozen);
      const kernels = await trainer.profile();
      if (kernels) this.#host.emit({ type: "profile", kernels });
      if (stopped) return this.#result("paused", done, null, {});
      return await this.#finish(trainer, done);
    } finally {
      trainer.destroy();
    }
  }

  /** Whether to stop before training has begun. Nothing needs to be saved then. */
  #stopAsked(): boolean {
    return this.#host.control() === "stop";
  }

  /**
   * State and measurements before the first step of this attempt.
   *
   * @returns the steps done so far; undefined where it was asked to stop
   */
  async #begin(
    trainer: Trainer,
    stream: BatchStream,
    resumed: CheckpointState | undefined,
  ): Promise<number | undefined> {
    if (this.#host.resume) {
      const from = resumed?.step ?? -1;
      this.#host.emit({ type: "rewind", step: from });
      // They are damaged, or what was said before them is lost: counted among the latest, they would push good ones out.
      await this.#checkpoints.removeAfter(from);
    }
    if (resumed) {
      const flat = await this.#checkpoints.read(resumed.step);
      trainer.setState(flat.parameters, flat);
      stream.restore(resumed.cursor);
      trainer.controllers.restore(resumed.controllers ?? {});
      this.#progress = structuredClone(resumed.progress);
      this.#earlier = resumed.progress.seconds;
      return resumed.step;
    }
    trainer.setState((await this.#setup.trainables.initialValues(this.#recipe.train.seed)).trained);
    this.#stage("evaluate", "measuring teacher and student on the held-out samples");
    const teacher = await this.#measureTeacher(trainer);
    this.#progress.heldOutTokens = teacher.tokens;
    this.#progress.teacherLoss = this.#tellEvaluation("teacher", 0, teacher);
    if (this.#stopAsked()) return undefined;
    this.#progress.beforeLoss = await this.#evaluate(trainer, 0);
    for (const model of ["teacher", "student"] as const) {
      if (this.#stopAsked()) return undefined;
      await this.#writeSamples(trainer, model, 0);
    }
    return 0;
  }

  async #train(trainer: Trainer, stream: BatchStream, from: number, frozen: FrozenPlan) {
    const { steps, accumulation, evaluateEvery, checkpointEvery } = this.#recipe.train;
    this.#stage("train", `training ${steps} steps`);
    this.#lastReport = performance.now();
    for (let step = from; step < steps;) {
      await trainer.step(step, Array.from({ length: accumulation }, () => stream.next()));
      step++;
      this.#stepsSinceReport++;
      const control = this.#host.control();
      const evaluates = evaluateEvery > 0 && step % evaluateEvery === 0 && step < steps;
      const saves = control !== "run" || (checkpointEvery > 0 && step % checkpointEvery === 0) ||
        step === steps;
      const waited = (performance.now() - this.#lastReport) / 1000;
      if (evaluates || saves || trainer.mustCollect || waited > REPORT_SECONDS) await this.#report(trainer);
      if (evaluates || step === steps) await this.#evaluate(trainer, step);
      // A new best is kept even where no checkpoint was due.
      if (saves || this.#progress.best?.step === step) await this.#save(trainer, stream, step, frozen);
      if (control === "stop") return { done: step, stopped: step < steps };
    }
    return { done: steps, stopped: false };
  }

  /** Fetches the numbers of queued steps and emits them. @throws {DivergedError} */
  async #report(trainer: Trainer): Promise<void> {
    const all = await trainer.collect();
    await trainer.profile();
    const now = performance.now();
    const seconds = (now - this.#lastReport) / 1000 / Math.max(1, this.#stepsSinceReport);
    this.#lastReport = now;
    this.#stepsSinceReport = 0;
    for (const m of all) {
      this.#host.emit({
        type: "metrics",
        step: m.step,
        loss: finite(m.loss),
        losses: finiteAll(m.losses),
        ...(trainer.controllers.active ? { controlled: { ...m.controlled } } : {}),
        learningRate: m.learningRate,
        gradientNorm: finite(m.gradientNorm),
        supervisedTokens: m.supervisedTokens,
        tokensPerSecond: m.tokens / seconds,
        secondsPerStep: seconds,
      });
      this.#progress.window = checkDivergence(m, this.#progress.window, this.#recipe.train.divergence);
    }
  }

  /** The teacher before the first step; what a cache says of it, where there is one. */
  async #measureTeacher(trainer: Trainer): Promise<Evaluation> {
    const known = this.#cache?.findings.heldOut;
    if (!known) return await trainer.evaluateTeacher(this.#prepared.heldOut);
    return { losses: { "cross-entropy": known.loss }, tokens: known.tokens };
  }

  /** Measures the student and keeps the best; returns its cross-entropy. */
  async #evaluate(trainer: Trainer, step: number): Promise<number | null> {
    if (this.#setup.teacherAdapter && step > 0) {
      this.#tellEvaluation("teacher", step, await trainer.evaluateTeacher(this.#prepared.heldOut));
    }
    const value = this.#tellEvaluation("student", step, await trainer.evaluate(this.#prepared.heldOut));
    if (value !== null && step > 0 && value < (this.#progress.best?.loss ?? Infinity)) {
      this.#progress.best = { loss: value, step };
    }
    this.#progress.lastLoss = value;
    this.#lastReport = performance.now();
    return value;
  }

  /** Emits a measurement; returns its cross-entropy. */
  #tellEvaluation(model: Learner, step: number, { losses: all, tokens }: Evaluation): number | null {
    const { "cross-entropy": loss, ...losses } = all;
    const value = finite(loss!);
    this.#host.emit({ type: "evaluation", step, model, loss: value, losses: finiteAll(losses), tokens });
    return value;
  }

  async #save(trainer: Trainer, stream: BatchStream, step: number, frozen: FrozenPlan): Promise<void> {
    const flat = await trainer.readState();
    this.#progress.seconds = this.#seconds();
    const path = await this.#checkpoints.write(flat, {
      step,
      cursor: stream.state(),
      ...(trainer.controllers.active ? { controllers: trainer.controllers.state() } : {}),
      identity: this.#identity,
      storage: this.#prepared.student.storage,
      frozen,
      progress: this.#progress,
    });
    this.#host.emit({
      type: "checkpoint",
      step,
      path: path.slice(this.#host.folder.length + 1),
      best: this.#progress.best?.step === step,
    });
    this.#lastReport = performance.now();
  }

  async #finish(trainer: Trainer, steps: number): Promise<RunResult> {
    await this.#writeSamples(trainer, "student", steps);
    const { adapter, tensors } = this.#setup;
    this.#stage("export", adapter ? "writing the adapter" : "writing the merged model; there is no adapter");
    const { parameters } = await trainer.readState();
    const paths = await writeResults(this.#host.folder, this.#prepared, this.#setup, parameters);
    const result = this.#result("succeeded", steps, this.#progress.lastLoss, paths);
    return adapter ? { ...result, adapterForm: runForm(adapter, tensors) } : result;
  }

  #result(
    status: RunResult["status"],
    steps: number,
    after: number | null,
    paths: RunResult["paths"],
  ): RunResult {
    const { teacherLoss: teacher, beforeLoss: before, heldOutTokens: tokens } = this.#progress;
    return {
      status,
      steps,
      heldOut: { teacher, before, after, gapClosed: gapClosed(teacher, before, after), tokens },
      paths,
      peakBytes: { planned: this.#plannedBytes, allocated: this.#gpu.peakBytes },
      seconds: this.#seconds(),
    };
  }

  async #writeSamples(trainer: Trainer, model: "teacher" | "student", step: number): Promise<void> {
    if (this.#recipe.samples.tokens === 0) return;
    this.#stage("sample", `writing samples of the ${model}`);
    for (const sample of await this.#samplesOf(trainer, model)) {
      this.#progress.samples.push({ model, step, ...sample });
      this.#host.emit({ type: "sample", step, model, ...sample });
    }
  }

  /** Sample texts of a model; of a cached teacher those that the cache has, if they were written with the same settings. */
  async #samplesOf(trainer: Trainer, model: Learner): Promise<readonly { prompt: string; text: string }[]> {
    if (model === "student" || !this.#cache) {
      const buffers = generationBuffers(trainer);
      return await writeSamples(this.#gpu, buffers, this.#prepared, this.#setup, model);
    }
    const { texts } = this.#cache.findings;
    if (texts?.settings === textSettings(this.#prepared)) return texts.samples;
    this.#host.emit({
      type: "warning",
      code: "no_teacher_samples",
      message:
        "the teacher's cache was made with other samples.* settings, so there are no texts of the teacher",
    });
    return [];
  }

  #announcePlan(bytes: ReadonlyMap<string, number>, totalBytes: number): void {
    const { teacher, student, trainables } = this.#setup;
    const { trainReport: report, train, heldOut } = this.#prepared;
    this.#host.emit({
      type: "plan",
      adapterName: this.#gpu.description.name,
      software: this.#gpu.adapter.info.isFallbackAdapter,
      bytes: Object.fromEntries(bytes),
      totalBytes,
      parameters: {
        teacher: teacher.architecture.parameterCount,
        student: student.architecture.parameterCount,
        trainable: trainables.layout.trainable,
      },
      data: {
        trainSamples: train.length,
        heldOutSamples: heldOut.length,
        trainTokens: report.tokens,
        supervisedTokens: report.supervisedTokens,
      },
      steps: this.#recipe.train.steps,
    });
  }

  #stage(stage: string, message: string): void {
    this.#host.emit({ type: "stage", stage, message });
  }

  #seconds(): number {
    return this.#earlier + (performance.now() - this.#started) / 1000;
  }
}

function finite(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}

function finiteAll(values: Readonly<Record<string, number>>): Record<string, number | null> {
  return Object.fromEntries(Object.entries(values).map(([k, v]) => [k, finite(v)]));
}
