/**
 * One attempt at a run: from a recipe to an adapter. Everything it has to say goes out as events; everything it leaves lies in the
 * run's folder.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { system } from "../../base/system.ts";
import { familiesOf } from "../../registry/families.ts";
import { removeUnfinishedFolders } from "../../formats/files.ts";
import { type Gpu, openGpu } from "../../gpu/device.ts";
import type { Plan } from "../../tensor/plan.ts";
import { othersThanFirst } from "../../tensor/variants.ts";
import type { Registry } from "../../registry/registry.ts";
import type { Batches } from "../../text/batch_stream.ts";
import { type CheckpointState, newestState } from "../checkpoint/checkpoint.ts";
import { RunCheckpoints } from "../checkpoint/run_checkpoints.ts";
import { runForm } from "../export/adapter_files.ts";
import { type RunResult, writeBase, writeResults } from "../export/exports.ts";
import { Rollouts } from "../generate/rollouts.ts";
import { sampleBytes, teacherTexts } from "../generate/samples.ts";
import { alignmentText } from "../inputs/aligned_teacher.ts";
import { privilegedText } from "../inputs/privileged_teacher.ts";
import { dataWarnings } from "../inputs/data_warnings.ts";
import { type PreparedRun, prepareRun } from "../inputs/prepare.ts";
import type { OpenedTask } from "../evaluate/encoded_tasks.ts";
import { trainingBatches } from "../inputs/training_batches.ts";
import { type RunMemory, runMemory } from "../program/memory.ts";
import { memberName } from "../program/block_models.ts";
import {
  otherTokens,
  type PlanChoices,
  type PlannedTraining,
  planTraining,
  type TrainingSetup,
} from "../program/plan_training.ts";
import type { StreamedTeacher } from "../program/streamed/streamed_teacher.ts";
import { checkPairs } from "../objective/pairs.ts";
import { checkPrompts } from "../program/fed/prompt_features.ts";
import { Trainer } from "../program/trainer.ts";
import { checkRecipePlugins } from "../recipe/plugins.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { cacheOf, cachesOf, keepsPart, passesOf, SERVED } from "../recipe/teachers.ts";
import type { TeacherCache } from "../teacher/cache.ts";
import { findTeachers, sharedFolder, teacherParts } from "../teacher/choose.ts";
import { preparedOf, samplesOf, setupOf, TeacherTargets } from "../teacher/teacher_targets.ts";
import { openTeacherCache } from "../teacher/make_cache.ts";
import { Attempt } from "./attempt.ts";
import { planWithKernels } from "./chosen_kernels.ts";
import type { RunHost, TeachersEvent } from "./events.ts";
import { checkHostMemory, hostMemory } from "./host_memory.ts";
import { evaluate, measureShapes, measureTeacher, tellSamples } from "./measurements.ts";
import { runIdentity } from "./run_identity.ts";
import { streamCost, streamCostText } from "./stream_cost.ts";
import { setUp } from "./set_up.ts";
import { evaluateRun, EvaluationStopped, openTasks } from "./task_evaluation.ts";
import { TrainingLoop } from "./training_loop.ts";

/**
 * Runs a recipe to its end, or to where `host.control()` asks to stop.
 *
 * @throws {InputError} on inputs that do not do, and on a resume with another recipe, model or plugin
 * @throws {DeviceError} without an adapter, or where memory does not suffice
 * @throws {DivergedError} if the loss becomes NaN or runs away; the last checkpoint stays
 */
export async function distillRun(recipe: Recipe, host: RunHost): Promise<RunResult> {
  const started = performance.now();
  const { registry } = host;
  checkRecipePlugins(recipe, registry);
  host.emit({ type: "stage", stage: "load", message: "reading models and data" });
  const begun = host.resume ? await newestState(join(host.folder, CHECKPOINTS)) : undefined;
  const scratch = join(host.folder, ROWS);
  // Of an attempt that was killed.
  await system.remove(scratch, { recursive: true }).catch(() => {});
  const prepared = await prepareRun(recipe, begun, familiesOf(registry), {
    scratch,
    onProgress: () => host.emit({ type: "heartbeat" }),
  });
  let own: Gpu | undefined;
  try {
    const setup = setUp(prepared, registry);
    checkPrompts([...prepared.train, ...prepared.heldOut], setup.adapter, setup.teacherAdapter);
    checkPairs({ terms: setup.objective.terms, recipe: prepared.recipe }, prepared);
    for (const message of origins(setup, registry)) host.emit({ type: "stage", stage: "plugins", message });
    const { aligned, privileged } = prepared;
    if (aligned) {
      host.emit({ type: "stage", stage: "align", message: alignmentText({ ...prepared, aligned }) });
    }
    if (privileged) {
      const message = privilegedText(privileged, prepared.train.length + prepared.heldOut.length);
      host.emit({ type: "stage", stage: "privileged", message });
    }
    for (const warning of dataWarnings(prepared)) host.emit({ type: "warning", ...warning });
    const tasks = await openTasks(recipe.evaluate?.tasks ?? []);
    const gpu = host.gpu ?? (own = await openGpu());
    gpu.forgetPeak();
    const { kernels } = gpu.description;
    try {
      return await new Run(new Attempt(prepared, setup, gpu, host, started), tasks).run();
    } finally {
      // A device that others use too is left as it was.
      gpu.prefer(kernels);
    }
  } finally {
    prepared.close();
    await system.remove(scratch).catch(() => {});
    own?.destroy();
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
/** Where copies of training rows lie that are read while they are needed. */
const ROWS = "rows";

/** Where in a run's folder the caches of its teacher lie, where its recipe names none. */
export const OWN_CACHES = "teacher-cache";

/** Someone asked to stop while teachers went over the samples. */
class StopAsked extends Error {}

/** Under which a checkpoint keeps the hash of the cache that the run trains on. */
const CACHE_IDENTITY = "teacher's cache";

/** Under which it keeps the hash of which of several teachers each sample has. */
const CHOICE_IDENTITY = "teacher of each sample";

/** What is known only once teachers have been asked. */
const LATER = [CACHE_IDENTITY, CHOICE_IDENTITY];

/** The order of an attempt. */
class Run {
  readonly #attempt: Attempt;
  readonly #checkpoints: RunCheckpoints;
  readonly #caches: string;
  /** Open caches, by the teacher's number in the recipe; none where no teacher is kept. */
  readonly #opened: (TeacherCache | undefined)[] = [];
  /** What models are asked at the end. */
  readonly #tasks: readonly OpenedTask[];
  #identity: Record<string, string> = {};

  constructor(attempt: Attempt, tasks: readonly OpenedTask[]) {
    this.#tasks = tasks;
    const { host, setup, recipe } = this.#attempt = attempt;
    this.#checkpoints = new RunCheckpoints(
      join(host.folder, CHECKPOINTS),
      setup.trainables,
      recipe.train.keepCheckpoints,
      (message) => host.emit({ type: "warning", code: "damaged_checkpoint", message }),
    );
    this.#caches = join(host.folder, OWN_CACHES);
  }

  async run(): Promise<RunResult> {
    const attempt = this.#attempt;
    const { host, prepared, setup, gpu } = attempt;
    for (const folder of [host.folder, this.#checkpoints.folder, this.#caches]) {
      await removeUnfinishedFolders(folder);
    }
    this.#identity = await runIdentity(prepared, setup);
    const resumed = host.resume
      ? await this.#checkpoints.latest(host.resumeLimit, this.#identity, LATER)
      : undefined;
    const planned = await planWithKernels(
      attempt,
      resumed?.frozen,
      this.#availableBytes,
      () =>
        planTraining(setup, gpu.description, {
          ...(resumed ? { choices: resumed.frozen } : {}),
          sampleBytes: (streamed) => sampleBytes(gpu.description, prepared, setup, streamed),
          availableBytes: this.#availableBytes,
        }),
    );
    const memory = runMemory(planned.plan, planned.sampleBytes);
    attempt.plannedBytes = memory.total;
    attempt.tellPlan(memory, othersThanFirst(planned.plan.kernels));
    if (planned.streamed) await this.#tellStream(planned.streamed, planned.plan);
    this.#checkHost(memory, planned.choices.recompute);

    attempt.stage("base", "writing the student's base");
    await writeBase(host.folder, prepared, { keep: resumed !== undefined });
    if (attempt.stopAsked()) return attempt.result("paused", resumed?.step ?? 0);
    try {
      await this.#findTeachers(planned.choices, resumed);
      await this.#openCache(planned.choices, resumed);
      const result = await this.#main(planned, resumed);
      const teaches = !planned.streamed && attempt.recipe.teacher.model !== SERVED;
      return result.status === "succeeded" ? await this.#evaluated(result, teaches) : result;
    } catch (error) {
      if (error instanceof StopAsked) return attempt.result("paused", resumed?.step ?? 0);
      throw error;
    } finally {
      for (const cache of this.#opened) cache?.close();
    }
  }

  /** The result with what the recipe's tasks find; paused where it was asked to stop meanwhile. */
  async #evaluated(result: RunResult, withTeacher: boolean): Promise<RunResult> {
    const attempt = this.#attempt;
    if (this.#tasks.length === 0) return result;
    try {
      const evaluation = await evaluateRun(attempt, this.#tasks, result.steps, withTeacher);
      return { ...result, evaluation, seconds: attempt.seconds };
    } catch (error) {
      if (error instanceof EvaluationStopped) return attempt.result("paused", result.steps);
      throw error;
    }
  }

  /** Where a CPU plays the GPU, the machine's own memory is its memory. */
  get #availableBytes(): number | undefined {
    return this.#attempt.gpu.adapter.info.isFallbackAdapter ? hostMemory() : undefined;
  }

  /** @throws {DeviceError} if a CPU plays the GPU, and the machine lacks the memory */
  #checkHost(memory: RunMemory, recompute: boolean): void {
    const { gpu, recipe } = this.#attempt;
    if (gpu.adapter.info.isFallbackAdapter) checkHostMemory(memory, recipe, recompute);
  }

  async #tellStream(streamed: StreamedTeacher, plan: Plan): Promise<void> {
    this.#attempt.stage("stream", streamCostText(await streamCost(streamed, plan)));
  }

  /** @throws {StopAsked} */
  readonly #onSlice = () => {
    this.#attempt.host.emit({ type: "heartbeat" });
    if (this.#attempt.stopAsked()) throw new StopAsked();
  };

  /** Finds which of several teachers each sample has. @throws {StopAsked} in the middle of that */
  async #findTeachers(choices: PlanChoices, resumed: CheckpointState | undefined): Promise<void> {
    const attempt = this.#attempt;
    const { host, prepared, setup, gpu } = attempt;
    const place = {
      ...{ path: join(host.folder, "teachers.safetensors"), choices },
      ...{ availableBytes: this.#availableBytes, caches: this.#places },
      shared: sharedFolder(setup.recipe.teacher, host.caches),
    };
    const found = attempt.found = await findTeachers(gpu, prepared, setup, place, {
      onSlice: this.#onSlice,
      onTeacher: (name, samples) =>
        attempt.stage("teachers", `measuring the teacher ${name} on ${samples} samples`),
    });
    if (!found) return;
    this.#identity[CHOICE_IDENTITY] = found.identity;
    if (resumed) this.#checkpoints.checkIdentity(resumed, this.#identity, [CHOICE_IDENTITY]);
    const combine = setup.recipe.teacher.combine as TeachersEvent["combine"];
    if (!resumed) host.emit({ type: "teachers", combine, teachers: teacherParts(found, prepared.train) });
  }

  /** Opens the teachers' caches, or runs the teachers to make them. @throws {StopAsked} in the middle of that */
  async #openCache(choices: PlanChoices, resumed: CheckpointState | undefined): Promise<void> {
    const { prepared, setup, found } = this.#attempt;
    const { teacher } = setup.recipe;
    if (cachesOf(teacher).length === 0) return;
    for (const i of setup.teachers.keys()) {
      const own = found ? samplesOf(found.choice, i, prepared) : prepared;
      const isNeeded = cacheOf(teacher, i) !== undefined && own.train.length + own.heldOut.length > 0;
      this.#opened.push(
        isNeeded ? await this.#openOne(preparedOf(own, i), setupOf(setup, i), choices) : undefined,
      );
    }
    const caches = this.#opened.filter((cache) => cache !== undefined);
    // Where the first teacher is there itself, it is what texts are written by.
    if (cacheOf(teacher, 0)) this.#attempt.cache = caches[0];
    this.#identity[CACHE_IDENTITY] = caches.map((cache) => cache.identity).join(" ");
    if (resumed) this.#checkpoints.checkIdentity(resumed, this.#identity, [CACHE_IDENTITY]);
  }

  /** Folders of caches, where the recipe names none. One that an earlier version made lies in the run's own, and is found there. */
  get #places(): string[] {
    const { caches } = this.#attempt.host;
    return [this.#caches, ...(caches === undefined ? [] : [caches])];
  }

  async #openOne(
    prepared: PreparedRun,
    setup: TrainingSetup,
    choices: PlanChoices,
  ): Promise<TeacherCache | undefined> {
    const attempt = this.#attempt;
    // A first teacher that is there itself writes with the student; of one behind a server nothing is here that could.
    const writes = passesOf(attempt.recipe.teacher).includes(0);
    const texts = writes && this.#opened.every((cache) => cache === undefined)
      ? teacherTexts(attempt.gpu.description, prepared, setup)
      : undefined;
    const isMeasured = !(attempt.recipe.teacher.teachers && setup.recipe.teacher.server);
    const sizes = { choices, texts, isMeasured, availableBytes: this.#availableBytes };
    const opened = await openTeacherCache(attempt.gpu, prepared, setup, sizes, this.#places, {
      onSlice: this.#onSlice,
      onFound: (path, samples) => {
        const message = samples === 0
          ? `using the teacher's cache ${path}`
          : `running the teacher over ${samples} samples`;
        attempt.stage("cache", message);
      },
      onPlanned: async ({ memory, plan, streamed }) => {
        this.#checkHost(memory, true);
        if (streamed) await this.#tellStream(streamed, plan);
      },
    });
    if (!opened) return undefined;
    attempt.plannedBytes = Math.max(attempt.plannedBytes, opened.plannedBytes);
    return opened.cache;
  }

  async #main(planned: PlannedTraining, resumed: CheckpointState | undefined): Promise<RunResult> {
    const attempt = this.#attempt;
    const { cache, found, gpu, host, setup } = attempt;
    const { teacher } = setup.recipe;
    const target = teacher.teachers && this.#opened.length > 0
      ? new TeacherTargets(
        this.#opened,
        found?.choice,
        teacher.teachers.map(({ name }, i) => keepsPart(cacheOf(teacher, i)) ? undefined : memberName(name!)),
      )
      : cache;
    const paused = () => attempt.result("paused", resumed?.step ?? 0);
    attempt.stage("compile", "uploading weights and compiling kernels");
    const trainer = await Trainer.create(gpu, setup, planned, {
      ...(target ? { target } : {}),
      ...(found ? { choice: found.choice } : {}),
      profile: host.profile ?? false,
      onSlice: () => host.emit({ type: "heartbeat" }),
      onProgress: () => host.emit({ type: "heartbeat" }),
    });
    let rollouts: Rollouts | undefined;
    try {
      rollouts = await Rollouts.open(trainer, attempt.prepared.stopTokens);
      if (resumed?.rollouts) rollouts?.restore(resumed.rollouts);
      const stream = trainingBatches(
        attempt.prepared,
        planned.choices.tokens,
        otherTokens(planned.choices),
      );
      if (attempt.stopAsked()) return paused();
      const step = await this.#begin(trainer, stream, resumed);
      if (step === undefined) return paused();
      await trainer.profile({ reset: true });
      const loop = new TrainingLoop(attempt, trainer, stream, this.#checkpoints, this.#identity, rollouts);
      const { done, stopped } = await loop.run(step);
      const kernels = await trainer.profile();
      if (kernels) host.emit({ type: "profile", kernels });
      return stopped ? attempt.result("paused", done) : await this.#finish(trainer, done);
    } finally {
      rollouts?.close();
      trainer.destroy();
    }
  }

  /**
   * State and measurements before the first step of this attempt.
   *
   * @returns the steps done so far; undefined where it was asked to stop
   */
  async #begin(
    trainer: Trainer,
    stream: Batches,
    resumed: CheckpointState | undefined,
  ): Promise<number | undefined> {
    const attempt = this.#attempt;
    if (attempt.host.resume) {
      const from = resumed?.step ?? -1;
      attempt.host.emit({ type: "rewind", step: from });
      // They are damaged, or what was said before them is lost: counted among the latest, they would push good ones out.
      await this.#checkpoints.removeAfter(from);
    }
    if (resumed) {
      const flat = await this.#checkpoints.read(resumed.step);
      trainer.setState(flat.parameters, flat);
      stream.restore(resumed.cursor);
      attempt.drawn = stream.drawn();
      trainer.controllers.restore(resumed.controllers ?? {});
      attempt.restore(resumed.progress);
      return resumed.step;
    }
    trainer.setState((await attempt.setup.trainables.initialValues(attempt.recipe.train.seed)).trained);
    attempt.stage("evaluate", "measuring teacher and student on the held-out samples");
    await measureTeacher(attempt, trainer);
    if (attempt.stopAsked()) return undefined;
    attempt.progress.beforeLoss = await evaluate(attempt, trainer, 0);
    if (attempt.stopAsked()) return undefined;
    await measureShapes(attempt, trainer, 0);
    for (const model of ["teacher", "student"] as const) {
      if (attempt.stopAsked()) return undefined;
      await tellSamples(attempt, trainer, model, 0);
    }
    return 0;
  }

  async #finish(trainer: Trainer, steps: number): Promise<RunResult> {
    const attempt = this.#attempt;
    const { host, prepared, setup } = attempt;
    await measureShapes(attempt, trainer, steps);
    await tellSamples(attempt, trainer, "student", steps);
    const { adapter, tensors } = setup;
    attempt.stage(
      "export",
      adapter ? "writing the adapter" : "writing the merged model; there is no adapter",
    );
    const { parameters } = await trainer.readState();
    const paths = await writeResults(host.folder, prepared, setup, parameters);
    const result = attempt.result("succeeded", steps, attempt.progress.lastLoss, paths);
    return adapter ? { ...result, adapterForm: runForm(adapter, tensors) } : result;
  }
}
