/**
 * Works on the runs that a service was asked for, the oldest first, one at a time: nothing runs while none is queued, and each run is a
 * process that leaves nothing behind.
 *
 * @module
 */
import type { RunEvent, RunTuning } from "../../distill/run/events.ts";
import { InputError } from "../../base/errors.ts";
import { bytes } from "../../base/units.ts";
import type { FetchOptions } from "../../hub/fetch_model.ts";
import { errorEvent } from "../child/told_error.ts";
import { WAITING } from "../child/training.ts";
import { serviceLock } from "../store/layout.ts";
import { settle, takeRun } from "../store/run_folder.ts";
import { acquireLock } from "../store/run_lock.ts";
import type { RunManifest, Store, StoredRun } from "../store/store.ts";
import { absentModels, hubModels, restoreModels } from "../task/hub_models.ts";
import { type SupervisedRun, superviseRun } from "./supervisor.ts";

/** How a scheduler works. */
export interface SchedulerOptions {
  readonly store: Store;
  /** Seconds that a run may take, waiting aside, since someone asked for it. */
  readonly wallSeconds?: number;
  /** Sees what the runs say, once it is stored. */
  readonly onEvent?: (id: string, event: RunEvent) => void;
  /** Called when a run has come to rest, however it did; awaited before the next one begins. */
  readonly onRest?: (run: StoredRun) => Promise<void>;
  /** Called with what is wrong beside any run. */
  readonly onError?: (error: unknown) => void;
  /** Fetches models of the hub that runs name by their places in the cache; they must be there when absent. */
  readonly hub?: FetchOptions;
  /** Module that exports `main(plugins)`; tests hand in their own. */
  readonly entry?: string;
  /** Overrides the recipes' `limits.watchdogSeconds`. */
  readonly watchdogSeconds?: number;
  /** Whether runs time kernels that the device has not chosen among yet; see {@linkcode SuperviseOptions.tune}. */
  readonly tune?: RunTuning["measure"];
}

/** How often a run continues by itself. */
const MOST_RESTARTS = 3;

/** Works on queued runs until it is closed. */
export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #unlock: () => void;
  readonly #work: Promise<void>;
  readonly #listening: Disposable;
  #wake = Promise.withResolvers<void>();
  #current: { id: string; supervised: SupervisedRun } | undefined;
  #closed = false;
  /** Ends the fetch that a run waits for. */
  #fetching: AbortController | undefined;

  private constructor(options: SchedulerOptions, unlock: () => void) {
    this.#options = options;
    this.#unlock = unlock;
    this.#listening = options.store.onChange(() => this.#wake.resolve());
    this.#work = this.#loop();
  }

  /**
   * Queues what a service that ended left behind, and begins to work.
   *
   * @throws {InputError} another service works on the data folder
   */
  static async start(options: SchedulerOptions): Promise<Scheduler> {
    const { store } = options;
    let unlock: () => void;
    try {
      unlock = await acquireLock(serviceLock(store));
    } catch (cause) {
      if (!(cause instanceof InputError)) throw cause;
      throw new InputError("another service works on this data folder", {
        where: store.folder,
        hint: "End that one first, or choose another folder with --data.",
        cause,
      });
    }
    try {
      await recover(store);
      return new Scheduler(options, unlock);
    } catch (error) {
      unlock();
      throw error;
    }
  }

  /** Id of the run that is worked on, if there is one. */
  get current(): string | undefined {
    return this.#current?.id;
  }

  /**
   * Lets the current run save a checkpoint, so that it goes on when the next service starts, and ends.
   *
   * @param seconds after which its process is told to end, and killed where it does not
   */
  async close(seconds = 30): Promise<void> {
    this.#closed = true;
    this.#wake.resolve();
    this.#fetching?.abort();
    this.#current?.supervised.leave();
    const timer = setTimeout(() => this.#current?.supervised.terminate(), seconds * 1000);
    await this.#work;
    clearTimeout(timer);
    this.#listening[Symbol.dispose]();
    this.#unlock();
  }

  async #loop(): Promise<void> {
    while (!this.#closed) {
      this.#wake = Promise.withResolvers();
      try {
        const run = (await this.#options.store.queued()).find(({ worker }) => worker === "service");
        if (run) await this.#one(run);
        else await this.#wake.promise;
      } catch (error) {
        this.#options.onError?.(error);
        // Such as a full disk: it may have room later.
        await Promise.race([this.#wake.promise, new Promise((resolve) => setTimeout(resolve, 1000))]);
      }
    }
  }

  /**
   * Fetches what of the hub a run needs; it waits in the queue meanwhile.
   *
   * @returns what its manifest has to say of its models; `ended` where the run was cancelled, or this scheduler is
   */
  async #fetchModels({ id, attempt, recipe }: StoredRun): Promise<Pick<RunManifest, "models"> | "ended"> {
    const { store, hub, onEvent } = this.#options;
    if (hub && (await absentModels(recipe)).size > 0) {
      const stop = this.#fetching = new AbortController();
      let told = Promise.resolve();
      let last = -Infinity;
      const tell = (message: string) => {
        last = performance.now();
        told = told.then(async () => {
          const [event] = await store.append(id, attempt, [{ type: "stage", stage: WAITING, message }]);
          onEvent?.(id, event!);
        }).catch(() => {});
      };
      using _watched = store.onChange(async () => {
        const run = await store.get(id).catch(() => undefined);
        if (run?.state !== "queued") stop.abort();
      });
      try {
        await restoreModels(recipe, {
          ...hub,
          signal: stop.signal,
          onProgress: ({ name, bytes: there, bytesTotal }) => {
            if (performance.now() - last < TELL_MS) return;
            tell(`waiting for ${name} from the hub: ${bytes(there)} of ${bytes(bytesTotal)}`);
          },
          onNote: tell,
        });
      } catch (error) {
        if (stop.signal.aborted) return "ended";
        throw error;
      } finally {
        this.#fetching = undefined;
        await told;
      }
      if (this.#closed) return "ended";
    }
    const models = await hubModels(recipe);
    return models ? { models } : {};
  }

  async #one(stored: StoredRun): Promise<void> {
    const { store, wallSeconds, entry, watchdogSeconds, tune, onEvent, onRest } = this.#options;
    let run;
    try {
      const models = await this.#fetchModels(stored);
      if (models === "ended") return;
      run = await takeRun(store, { ...stored, manifest: { ...stored.manifest, ...models } });
    } catch (error) {
      // What it needs is gone: it will not come back by waiting.
      await store.append(stored.id, stored.attempt, [errorEvent(error, false), {
        type: "state",
        state: "failed",
      }]);
      return;
    }
    try {
      const supervised = superviseRun({
        run,
        resume: stored.attempt > 0,
        maxRestarts: MOST_RESTARTS,
        unattended: true,
        ...(wallSeconds === undefined ? {} : { wallSeconds }),
        ...(entry === undefined ? {} : { entry }),
        ...(watchdogSeconds === undefined ? {} : { watchdogSeconds }),
        ...(tune === undefined ? {} : { tune }),
        onEvent: (event) => onEvent?.(stored.id, event),
      });
      this.#current = { id: stored.id, supervised };
      if (this.#closed) supervised.leave();
      const { state } = await supervised.outcome;
      // It was left in the middle; the next service takes it up.
      if (state === "interrupted" && this.#closed) await queueAgain(store, stored.id);
      const rested = await store.get(stored.id);
      if (rested && rested.state !== "queued") await onRest?.(rested);
    } finally {
      this.#current = undefined;
      run.release();
    }
  }
}

/** What a fetch has to say is told so often, milliseconds. */
const TELL_MS = 5000;

async function queueAgain(store: Store, id: string): Promise<void> {
  if ((await store.get(id))?.state === "interrupted") await store.requeue(id, "service", "service-end");
}

/** Queues runs whose service was killed; those that died too often have failed. */
async function recover(store: Store): Promise<void> {
  for (const state of ["running", "interrupted"] as const) {
    for (const run of await all(store, state)) {
      const { id, attempt, restarts, state } = await settle(store, run);
      if (state !== "interrupted") continue;
      if (restarts < MOST_RESTARTS) {
        await store.append(id, attempt, [{
          type: "state",
          state: "queued",
          message: "it continues from its last checkpoint, if there is one",
        }]);
      } else {
        await store.append(id, attempt, [{
          type: "error",
          code: "died",
          message: `the run was interrupted ${restarts + 1} times`,
          hint: "Resume it to try again from its last checkpoint.",
          exitCode: 1,
        }, { type: "state", state: "failed" }]);
      }
    }
  }
}

async function all(store: Store, state: "running" | "interrupted"): Promise<StoredRun[]> {
  const found: StoredRun[] = [];
  for (;;) {
    const after = found.at(-1)?.id;
    const page = await store.list({
      states: [state],
      worker: "service",
      limit: 100,
      ...(after ? { after } : {}),
    });
    found.push(...page.data);
    if (!page.hasMore) return found;
  }
}
