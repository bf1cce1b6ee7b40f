/**
 * Runs a training process and watches over it: stores what it says, passes on what is asked of it, ends it when it shows no sign of
 * life, and starts it again from the last checkpoint when it died.
 *
 * The watchdog must live here: a kernel that never ends blocks the whole process that waits for it.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join, resolve } from "@std/path";
import type {
  ErrorEvent,
  RunEvent,
  RunEventBody,
  RunState,
  RunTuning,
  TunedEvent,
} from "../../distill/run/events.ts";
import type { Recipe } from "../../distill/recipe/recipe.ts";
import { cachesOf, servedTeachers } from "../../distill/recipe/teachers.ts";
import type { RunResult } from "../../distill/export/exports.ts";
import { writeTextAtomically } from "../../formats/files.ts";
import type { ProviderId } from "../../gpu/provider.ts";
import { explainDeath } from "./run_death.ts";
import { type ChildCommand, prepareChild } from "../child/command.ts";
import { Child, type ChildEnd } from "../child/host.ts";
import { waitForEarlierChild } from "./earlier_child.ts";
import { storeUnsent } from "./unsent_events.ts";
import { ConsoleFile } from "./console_file.ts";
import { errorEvent } from "../child/told_error.ts";
import { RunLog } from "../store/event_log.ts";
import { cachesFolder, evaluationsFolder } from "../store/layout.ts";
import { type ControlWord, parseEvent, runEntry, type TrainingOrder, WAITING } from "../child/training.ts";
import type { LockedRun } from "../store/run_folder.ts";
import { DEFAULT_GPU, type RunStore } from "../store/store.ts";
import { StoreError } from "../store/store_errors.ts";
import { taskReads } from "../task/export_task.ts";
import { isTask, needsGpu, watchdogSecondsOf } from "../task/run_recipe.ts";
import { acquireLock } from "../store/run_lock.ts";
import { askingLock, waitForTurn } from "./turn.ts";
import { OWN_CACHES } from "../../distill/run/distill.ts";
import { TUNING } from "../../distill/run/chosen_kernels.ts";
import { keepMeasured, readTuned } from "../store/tuned_files.ts";
import { fillServed } from "../served/fill_served.ts";

/** How often to tell how far a server has answered, milliseconds. */
const PROGRESS_MS = 5000;

/** How often to look whether a full disk has room again, milliseconds. */
const ROOM_MS = 1000;

/** How to supervise a run. */
export interface SuperviseOptions {
  run: LockedRun;
  /** Continue from the newest checkpoint instead of beginning. */
  resume?: boolean;
  /** Sees each event once it is stored, and heartbeats never. */
  onEvent?: (event: RunEvent) => void;
  /** Module that exports `main(plugins)`; the trainer's own by default. */
  entry?: string;
  /** Overrides the recipe's `limits.watchdogSeconds`. */
  watchdogSeconds?: number;
  /** Seconds between SIGTERM and SIGKILL, and that a child may take to end after its last word (default 5). */
  graceSeconds?: number;
  /** How often a run whose process died is continued from a checkpoint (default 3). */
  maxRestarts?: number;
  /**
   * Nobody waits at a terminal who is better told at once: begins again when a process died before its first checkpoint, too, and where
   * the disk is too full to store how the run ended, waits for room.
   */
  unattended?: boolean;
  /** Seconds of work since someone asked for it after which a run is ended and has failed; no bound by default. */
  wallSeconds?: number;
  /** Where it has WebGPU from; as it was begun by default. */
  provider?: ProviderId | undefined;
  /** Error events carry stacks. */
  debug?: boolean;
  /** Measures each kernel; the events then end with a profile. */
  profile?: boolean;
  /** Whether kernels that the device has not chosen among yet are timed first (default `auto`: where a GPU does the work). */
  tune?: RunTuning["measure"];
}

/** How a supervised run ended. */
export interface RunOutcome {
  state: Extract<RunState, "succeeded" | "paused" | "failed" | "interrupted" | "cancelled">;
  /** Exit code for a command that did nothing else. */
  exitCode: number;
  result?: RunResult;
  error?: ErrorEvent;
}

/** How one process ended. */
interface AttemptEnd {
  result?: RunResult;
  error?: ErrorEvent;
  /** The last that was heard of it is that it times kernels: one of them may be more than the driver can take. */
  tuning: boolean;
  process: ChildEnd;
}

/**
 * Starts a run and returns at once.
 *
 * @example
 * ```ts ignore
 * const run = await createRun({ recipe });
 * const supervised = superviseRun({ run, onEvent: console.log });
 * const { state } = await supervised.outcome;
 * ```
 */
export function superviseRun(options: SuperviseOptions): SupervisedRun {
  return new SupervisedRun(options);
}

/** A run under supervision. */
export class SupervisedRun {
  /** Fulfilled when the run has ended, however it ended; rejected only when its log cannot be opened. The GPU is free by then. */
  readonly outcome: Promise<RunOutcome>;
  readonly #options: SuperviseOptions;
  readonly #graceSeconds: number;
  #child: Child<RunEventBody> | undefined;
  /** The word that asked the trainer to end. */
  #ending: "pause" | "stop" | undefined;
  /** To be continued by itself later: whoever watches has to end. */
  #leaving = false;
  #outOfTime = false;
  #killed = false;
  #measure: RunTuning["measure"];

  constructor(options: SuperviseOptions) {
    this.#options = options;
    this.#measure = options.tune ?? "auto";
    this.#graceSeconds = options.graceSeconds ?? 5;
    this.outcome = this.#supervise();
  }

  /** Seconds of silence after which a process is ended. */
  get #patience(): number {
    return this.#options.watchdogSeconds ?? watchdogSecondsOf(this.#options.run.recipe);
  }

  /** Where the run finds and leaves what was measured of shapes, if it measures some. */
  get #evaluations(): string | undefined {
    const { recipe, store } = this.#options.run;
    return isTask(recipe) && recipe.task === "shrink" ? resolve(evaluationsFolder(store)) : undefined;
  }

  /** The recipe that the run distils by, or makes a teacher's cache for. */
  get #distilled(): Recipe | undefined {
    const { recipe } = this.#options.run;
    if (!isTask(recipe)) return recipe;
    return recipe.task === "cache" ? recipe.recipe : undefined;
  }

  /** Whether the run computes with kernels that its device has chosen. */
  get #usesTuning(): boolean {
    const { recipe } = this.#options.run;
    return !isTask(recipe) || recipe.task === "cache" || recipe.task === "evaluate";
  }

  /** Where the run finds what was kept of its teacher ahead, if it keeps something and its recipe names no folder. */
  get #caches(): string | undefined {
    const caches = this.#distilled ? cachesOf(this.#distilled.teacher) : [];
    const { store } = this.#options.run;
    return caches.some(({ folder }) => folder === undefined) ? resolve(cachesFolder(store)) : undefined;
  }

  /** Asks the trainer to save a checkpoint, and to end after it unless `word` is `checkpoint`. */
  request(word: ControlWord): void {
    if (word !== "checkpoint") this.#ending = word;
    this.#child?.send(word);
  }

  /** Asks the trainer to save a checkpoint and to end, as a run that was interrupted and goes on by itself. */
  leave(): void {
    this.#leaving = true;
    this.request("stop");
  }

  /** Ends the process at once. What it did after its last checkpoint is lost. */
  kill(): void {
    this.#killed = true;
    this.#child?.kill();
  }

  /** Ends the process with SIGTERM, and with SIGKILL where it does not listen. */
  terminate(): void {
    this.#killed = true;
    this.#child?.end();
  }

  async #supervise(): Promise<RunOutcome> {
    const { run } = this.#options;
    const log = await RunLog.open(run.store, run);
    using _asked = run.store.onChange(() => this.#hear());
    try {
      const shares = this.#evaluations ?? this.#caches;
      const command = await prepareChild({
        folder: run.folder,
        ...(this.#distilled ? { recipe: this.#distilled } : { read: await taskReads(run.recipe) }),
        ...(shares === undefined ? {} : { shares }),
        plugins: run.manifest.plugins.map((plugin) => plugin.path),
        ...(needsGpu(run.recipe)
          ? { provider: this.#options.provider ?? run.manifest.provider ?? "native" }
          : {}),
        entry: this.#options.entry ?? runEntry(run.recipe),
      });
      const waits = async (what: string) => {
        const message = `waiting for ${what}`;
        await this.#publish(log, log.attempt, { type: "stage", stage: WAITING, message });
      };
      await waitForEarlierChild(
        run.folder,
        () => waits("the process of an earlier attempt, which saves and ends"),
      );
      await storeUnsent(log, run.folder);
      if (!await this.#fillServed(log)) return await this.#neverBegan();
      const ours = needsGpu(run.recipe)
        ? await waitForTurn(run.store, run, {
          onWait: (holder) => waits(`the GPU: ${holder} has it or comes first`),
          gaveUp: () => this.#killed || this.#ending !== undefined,
        })
        : !this.#killed && !this.#ending && (await run.store.get(run.id))?.state === "queued";
      if (!ours) return await this.#neverBegan();
      return await this.#attempts(log, command);
    } catch (error) {
      return await this.#startFailed(log, errorEvent(error, this.#options.debug ?? false));
    } finally {
      log.close();
      await run.store.release(DEFAULT_GPU, run.id).catch(() => {});
    }
  }

  /**
   * Asks the servers that teachers are behind, if some are, for what is missing: the run's own process has no network.
   *
   * @returns false where it was asked to stop meanwhile
   */
  async #fillServed(log: RunLog): Promise<boolean> {
    const { run } = this.#options;
    if (isTask(run.recipe) || servedTeachers(run.recipe.teacher).length === 0) return true;
    const tell = (message: string) =>
      this.#publish(log, Math.max(log.attempt, 1), { type: "stage", stage: "served", message });
    let telling: Promise<void> = Promise.resolve();
    let told = performance.now();
    const release = await acquireLock(askingLock(run.folder));
    const filled = await fillServed(run.recipe, {
      place: join(run.folder, OWN_CACHES),
      plugins: run.manifest.plugins.map((plugin) => plugin.path),
      stopped: () => this.#killed || this.#ending !== undefined,
      onStage: (message) => void (telling = telling.then(() => tell(message))),
      onProgress: (done, all, teacher) => {
        if (performance.now() - told < PROGRESS_MS) return;
        told = performance.now();
        const of = teacher === undefined ? "" : `${teacher}: `;
        telling = telling.then(() => tell(`${of}${done} of ${all} samples have been answered`));
      },
    }).finally(release);
    await telling;
    return filled.every(({ complete }) => complete);
  }

  /** One process after another, as long as they die and there is a checkpoint to continue from. */
  async #attempts(log: RunLog, command: ChildCommand): Promise<RunOutcome> {
    const { run, maxRestarts = 3 } = this.#options;
    using _time = this.#endInTime(log.secondsWorked);
    for (let resume = this.#options.resume ?? false;; resume = true) {
      const attempt = log.attempt + 1;
      const publish = (...bodies: RunEventBody[]) => this.#publish(log, attempt, ...bodies);
      await publish({ type: "state", state: "running" });
      const end = await this.#attempt(log, attempt, command, resume);
      const outcome = this.#judge(end);
      const { restarts, asked } = (await run.store.get(run.id))!;
      const checkpoint = await lastCheckpoint(run.store, run.id);
      const diedTuning = end.tuning && this.#measure !== "never";
      if (diedTuning) this.#measure = "never";
      const canRestart = outcome.state === "interrupted" && !this.#killed && this.#ending === undefined &&
        (checkpoint >= 0 || this.#options.unattended === true || diedTuning);
      if (canRestart && restarts < maxRestarts) {
        const message = outcome.error?.message;
        await publish(
          { type: "state", state: "interrupted", ...(message ? { message } : {}) },
          {
            type: "state",
            state: "queued",
            message: checkpoint >= 0
              ? "it continues from its last checkpoint"
              : diedTuning
              ? "it begins again, without timing kernels"
              : "it begins again",
          },
        );
        continue;
      }
      if (outcome.error && outcome.error !== end.error) await publish(outcome.error);
      if (outcome.result) {
        await writeTextAtomically(
          join(run.folder, "result.json"),
          JSON.stringify(outcome.result, null, 2) + "\n",
        );
      }
      const state = this.#endState(outcome.state, asked === "cancel");
      if (state === "failed" && this.#outOfTime) {
        outcome.error = this.#explainTime();
        await publish(outcome.error);
      }
      const message = state === "interrupted" && this.#leaving ? { message: "the service ended" } : {};
      await publish({ type: "state", state, ...message });
      return { ...outcome, state };
    }
  }

  #endState(state: RunOutcome["state"], cancelled: boolean): RunOutcome["state"] {
    const stopped = state === "paused" || state === "interrupted";
    if (stopped && cancelled) return "cancelled";
    if (stopped && this.#outOfTime) return "failed";
    if (stopped && this.#leaving) return "interrupted";
    // Nobody will continue it by itself, so a run that died has failed; one that the user killed can be resumed.
    return state === "interrupted" && !this.#killed ? "failed" : state;
  }

  /**
   * Ends the run when it has taken all its time, and its process when that does not listen.
   *
   * @param spent seconds of it that are gone, of attempts that another process watched over
   */
  #endInTime(spent: number): Disposable {
    const { wallSeconds } = this.#options;
    if (wallSeconds === undefined) return { [Symbol.dispose]() {} };
    let timer = setTimeout(() => {
      this.#outOfTime = true;
      this.request("stop");
      timer = setTimeout(() => this.terminate(), watchdogSecondsOf(this.#options.run.recipe) * 1000);
    }, Math.max(0, wallSeconds - spent) * 1000);
    return { [Symbol.dispose]: () => clearTimeout(timer) };
  }

  #explainTime(): ErrorEvent {
    return {
      type: "error",
      code: "wall_time",
      message: `the run took longer than the ${this.#options.wallSeconds} s that it may`,
      hint: "Its last checkpoint is kept: resume it for as long again, or begin one with fewer steps.",
      exitCode: 1,
    };
  }

  /** It was cancelled while it waited, or whoever watches had no more patience. */
  async #neverBegan(): Promise<RunOutcome> {
    const { store, id } = this.#options.run;
    const state = (await store.get(id))?.state;
    return { state: state === "queued" ? "interrupted" : "cancelled", exitCode: 130 };
  }

  /** Does what was asked of the run through the store. */
  async #hear(): Promise<void> {
    const { store, id } = this.#options.run;
    const run = await store.get(id).catch(() => undefined);
    if (!run?.asked || run.state !== "running") return;
    if (run.asked === "checkpoint") {
      this.#child?.send("checkpoint");
      await store.ask(id, null).catch(() => {});
    } else if (this.#ending === undefined) this.request(run.asked === "pause" ? "pause" : "stop");
  }

  /** One process, from its start to its end. */
  async #attempt(
    log: RunLog,
    attempt: number,
    command: ChildCommand,
    resume: boolean,
  ): Promise<AttemptEnd> {
    const { run } = this.#options;
    const output = await ConsoleFile.open(join(run.folder, "console.log"), attempt);
    const [evaluations, caches] = [this.#evaluations, this.#caches];
    const tuning = this.#usesTuning ? await this.#tuning(log, attempt) : undefined;
    const order: TrainingOrder = {
      recipe: run.recipe,
      folder: run.folder,
      resume,
      resumeLimit: await lastCheckpoint(run.store, run.id),
      debug: this.#options.debug ?? false,
      profile: this.#options.profile ?? false,
      ...(evaluations === undefined ? {} : { evaluations }),
      ...(caches === undefined ? {} : { caches }),
      ...(tuning === undefined ? {} : { tuning }),
    };
    // In a session of its own, the terminal's Ctrl-C does not reach it: we decide what it means.
    const child = this.#child = new Child<RunEventBody>({
      ...{ command, folder: run.folder, order, parse: parseEvent, console: output, detached: true },
      graceSeconds: this.#graceSeconds,
      // Without us it saves and ends, if it does not hang.
      orphanSeconds: this.#patience,
    });
    if (this.#ending) child.send(this.#ending);
    if (this.#killed) child.kill();

    const end: Omit<AttemptEnd, "process"> = { tuning: false };
    child.expect(this.#patience);
    try {
      for await (const body of child.messages()) {
        // States are ours to tell.
        if (body.type === "state" || body.type === "heartbeat") continue;
        end.tuning = body.type === "stage" && body.stage === TUNING;
        if (body.type === "tuned") await this.#keepTuned(log, attempt, body);
        if (body.type === "result") end.result = body.result;
        if (body.type === "error") end.error = body;
        await this.#publish(log, attempt, body);
        // After its last word it only has to end.
        if (end.result || end.error) child.expect(this.#graceSeconds);
      }
      return { ...end, process: await child.ended };
    } catch (error) {
      // The log failed. What the trainer can still save, it may.
      child.send("stop");
      child.expect(this.#graceSeconds);
      await child.ended;
      throw error;
    } finally {
      this.#child = undefined;
      output.close();
    }
  }

  /** What the devices of this machine have chosen before; what cannot be read is told, and no reason not to run. */
  async #tuning(log: RunLog, attempt: number): Promise<RunTuning> {
    const damaged: string[] = [];
    const kept = await readTuned(this.#options.run.store.folder, (message) => damaged.push(message));
    for (const message of damaged) {
      await this.#publish(log, attempt, { type: "warning", code: "damaged_tuning", message });
    }
    return { kept, measure: this.#measure };
  }

  async #keepTuned(log: RunLog, attempt: number, measured: TunedEvent): Promise<void> {
    try {
      await keepMeasured(this.#options.run.store.folder, measured);
    } catch (error) {
      const message = `what the device chose among kernels is not kept: ${(error as Error).message}`;
      await this.#publish(log, attempt, { type: "warning", code: "tuning_not_kept", message });
    }
  }

  #judge(end: AttemptEnd): RunOutcome {
    const { result, error, process } = end;
    if (result) {
      return result.status === "paused"
        ? { state: "paused", exitCode: 130, result }
        : { state: "succeeded", exitCode: 0, result };
    }
    if (error) return { state: "failed", exitCode: error.exitCode, error };
    if (this.#killed) return { state: "interrupted", exitCode: 130 };
    const died = explainDeath(process, this.#options.run.folder);
    return { state: "interrupted", exitCode: died.exitCode, error: died };
  }

  /** Whoever watches should know, and the log too where it takes an event, now or once there is room. */
  async #startFailed(log: RunLog, error: ErrorEvent): Promise<RunOutcome> {
    const isWaiting = () => this.#options.unattended === true && !this.#leaving && !this.#killed;
    for (;;) {
      try {
        await this.#publish(log, Math.max(log.attempt, 1), error, { type: "state", state: "failed" });
        break;
      } catch (cause) {
        // The outcome says it; a store that goes on saying "running" would keep readers waiting.
        if (!(cause instanceof StoreError) || !isWaiting()) break;
      }
      await new Promise((resolve) => setTimeout(resolve, ROOM_MS));
    }
    return { state: "failed", exitCode: error.exitCode, error };
  }

  async #publish(log: RunLog, attempt: number, ...bodies: RunEventBody[]): Promise<void> {
    for (const event of await log.append(bodies, attempt)) {
      try {
        this.#options.onEvent?.(event);
      } catch (error) {
        // A reader's mistake is not the run's.
        console.error(error);
      }
    }
  }
}

/** Step of the newest checkpoint before which nothing is missing in the log; -1 for none. */
async function lastCheckpoint(store: RunStore, id: string): Promise<number> {
  return (await store.checkpoints(id)).at(-1)?.step ?? -1;
}
