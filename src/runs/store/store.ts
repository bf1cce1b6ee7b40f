/**
 * Where runs are kept: what each is, where it stands, and everything it said. The command line and the service share one store, so a
 * run that was begun in a terminal shows in the page and the other way round.
 *
 * {@linkcode RunStore} and {@linkcode RunQueue} are what the rest knows. SQLite is the default (`sqlite/store.ts`); a database on
 * another machine can take its place, which is why every method returns a promise.
 *
 * @module
 */
import type { ErrorEvent, RunEvent, RunEventBody, RunState, StateEvent } from "../../distill/run/events.ts";
import type { RunResult } from "../../distill/export/exports.ts";
import type { ProviderId } from "../../gpu/provider.ts";
import type { HubRecord } from "../../hub/hub_cache.ts";
import type { IdentifiedPlugin } from "../child/plugin_identity.ts";
import type { RunRecipe, RunTask } from "../task/run_recipe.ts";

/** A store with its queue. */
export interface Store extends RunStore, RunQueue, Disposable {}

/** What made a run; written once. */
export interface RunManifest {
  id: string;
  /** ISO 8601, UTC. */
  createdAt: string;
  /** Version of Limbeck. */
  limbeck: string;
  deno: string;
  recipeHash: string;
  /** Plugin modules in the order they were given. */
  plugins: IdentifiedPlugin[];
  /** Where the run has WebGPU from, unless it is the runtime's own. */
  provider?: ProviderId;
  /** Models of the hub by the field of the recipe that names them: repository, commit, and the hash of each file. */
  models?: Readonly<Record<string, HubRecord>>;
}

/** Who works on a run when its turn comes: the command that began it, or a service. */
export type RunWorker = "command" | "service";

/** What is asked of a run that someone works on: save and go on, save and end, or end for good. */
export type RunRequest = "checkpoint" | "pause" | "cancel";

/** A run that is to be kept. */
export interface NewRun {
  readonly manifest: RunManifest;
  readonly recipe: RunRecipe;
  /** Absolute path of its folder. */
  readonly folder: string;
  readonly worker: RunWorker;
  /** Name of whoever asked a service for it; empty for a command's. */
  readonly owner?: string;
  /** What whoever made it wants to find it by. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** The recipe as it was sent, with names where the resolved one has paths. */
  readonly named?: unknown;
}

/** Where a run stands: all of it that events and what is asked of it change (`run_progress.ts`). */
export interface RunProgress {
  readonly state: RunState;
  /** What is asked of whoever works on it. */
  readonly asked: RunRequest | null;
  /** How often it was continued by itself since someone asked for it. */
  readonly restarts: number;
  /** Number of its last event. */
  readonly seq: number;
  /** Number of its last attempt; 0 before the first. */
  readonly attempt: number;
  /** Steps done; of a task hundredths of its work. */
  readonly step: number;
  /** Training loss of the last step. */
  readonly loss: number | null;
  /** When its first attempt began, and when it came to its end or to rest; ISO 8601, UTC. */
  readonly startedAt: string | null;
  readonly finishedAt: string | null;
  readonly result: RunResult | null;
  /** Why it failed. */
  readonly error: ErrorEvent | null;
}

/** A run as it is kept. */
export interface StoredRun extends Required<Omit<NewRun, "named">>, RunProgress {
  readonly id: string;
  readonly named: unknown;
}

/** Which runs to list. The newest come first. */
export interface RunQuery {
  /** Only runs after this one in the list. */
  readonly after?: string;
  /** Most runs (default 20). */
  readonly limit?: number;
  readonly states?: readonly RunState[];
  /** Only runs that have all of these. */
  readonly metadata?: Readonly<Record<string, string>>;
  readonly worker?: RunWorker;
  /** Only runs that distil, or that do this task. */
  readonly task?: RunTask;
}

/** A part of a list. */
export interface Page<T> {
  readonly data: readonly T[];
  /** Whether there is more after it. */
  readonly hasMore: boolean;
}

/** Which events of a run to read. */
export interface EventQuery {
  /** Only those with a greater number (default 0). */
  readonly after?: number;
  /** Most events. */
  readonly limit?: number;
  readonly types?: readonly RunEvent["type"][];
  readonly attempt?: number;
  /** Leaves out metrics and evaluations that a rewind took back. */
  readonly holding?: boolean;
  /** The last ones first; then `after` means those with a smaller number. */
  readonly newestFirst?: boolean;
}

/** Which metrics of a run to read. */
export interface MetricsQuery {
  /** First and last step. */
  readonly from: number;
  readonly to: number;
  /** Most points. */
  readonly points: number;
}

/** Some steps of training: the metrics of the last one, and the spread of the loss over all. */
export interface MetricsPoint {
  readonly metrics: Extract<RunEventBody, { type: "metrics" }>;
  readonly steps: number;
  readonly loss: {
    readonly mean: number | null;
    readonly least: number | null;
    readonly most: number | null;
  };
}

/** A checkpoint that may be continued from. */
export interface StoredCheckpoint {
  readonly step: number;
  /** Relative to the run's folder. */
  readonly path: string;
  readonly best: boolean;
  readonly time: string;
}

/**
 * Keeps runs and what they say. A promise that is fulfilled means that it lies on the disk. What becomes of a run is not the store's to
 * decide: it keeps what `run_progress.ts` makes of an event. `tests/runs/store_conformance.ts` says what each store must do.
 */
export interface RunStore {
  /** Absolute path of the folder that runs, uploads and locks lie in (`layout.ts`), wherever the store itself is. */
  readonly folder: string;

  /**
   * Keeps a run, queued: its first event says so.
   *
   * @param key makes sure that a request that is sent again makes no second run
   * @throws {IdempotencyError} the key was used for something else
   * @throws {TakenIdError} another run has its id
   * @returns the run, or the one that was made with the same key before
   */
  create(run: NewRun, key?: IdempotencyKey): Promise<StoredRun>;

  /** Keeps a run that was made elsewhere, with all that it said there. */
  adopt(run: NewRun, events: readonly RunEvent[]): Promise<StoredRun>;
  /** The run's folder has been moved. */
  move(id: string, folder: string): Promise<StoredRun>;

  get(id: string): Promise<StoredRun | undefined>;
  list(query?: RunQuery): Promise<Page<StoredRun>>;
  /** The oldest first, and only their ids: those that begin with a text. */
  ids(beginning?: string): Promise<string[]>;
  /**
   * The run that was made with a key.
   *
   * @throws {IdempotencyError} the key was used for something else
   */
  findByKey(key: IdempotencyKey): Promise<StoredRun | undefined>;
  /** The run whose folder this is. */
  findByFolder(folder: string): Promise<StoredRun | undefined>;
  /** Forgets a run. Its folder stays. */
  remove(id: string): Promise<void>;

  /**
   * Stores events and gives them their numbers. State changes, steps, checkpoints, results and errors show in the run at once.
   *
   * @throws {RunStateError} a state that the run cannot come to from where it is
   * @throws {StoreError} they could not be stored; nothing has changed
   */
  append(id: string, attempt: number, bodies: readonly RunEventBody[]): Promise<RunEvent[]>;
  /** Events in the order of their numbers. */
  events(id: string, query?: EventQuery): Promise<RunEvent[]>;
  /** Training metrics that hold, steps `from` to `to`, several steps in one point where there are more steps than points. */
  metrics(id: string, query: MetricsQuery): Promise<MetricsPoint[]>;
  /** Checkpoints that hold, in the order they were saved. */
  checkpoints(id: string): Promise<StoredCheckpoint[]>;

  /**
   * Asks something of whoever works on a run; null takes it back.
   *
   * @throws {RunStateError} nobody works on it
   */
  ask(id: string, request: RunRequest | null): Promise<void>;
  /**
   * Queues a run once more: because someone asked for it, so that restarts and time count anew, or because the service that worked on it
   * ends. One whose process died is queued by an event.
   *
   * @param by the request of someone when absent
   * @throws {RunStateError} it runs, waits already, or is done
   */
  requeue(id: string, worker: RunWorker, by?: StateEvent["by"]): Promise<StoredRun>;

  /** Calls back after each change, of this process or another, until disposed of. Nothing is watched while nobody listens. */
  onChange(listener: () => void): Disposable;
  /** Whether the store takes a write at this moment. */
  isWritable(): Promise<boolean>;
  close(): void;
}

/** Who may use the GPU. */
export interface RunQueue {
  /** The queued runs, the oldest first. */
  queued(limit?: number): Promise<StoredRun[]>;
  countByState(): Promise<Partial<Record<RunState, number>>>;
  countQueued(): Promise<number>;
  /**
   * Takes the lease of a GPU, unless someone else has it who lives. To the store a lock is a text: whether it is held, and with it who
   * lives, the caller knows.
   *
   * @returns undefined when it is ours, else who has it
   */
  lease(gpu: string, wanted: GpuLease, lives: (holder: GpuLease) => boolean): Promise<GpuLease | undefined>;
  /** Gives it back; nothing happens where someone else has it. */
  release(gpu: string, holder: string): Promise<void>;
}

/** Who uses a GPU. */
export interface GpuLease {
  /** The run's id, or what else it is used for. */
  readonly holder: string;
  /** What is locked as long as the holder lives: the path of a file. */
  readonly lock: string;
}

/** Tells a request that is sent again from a new one. */
export interface IdempotencyKey {
  /** Who sent it: keys of different people do not meet. */
  readonly owner: string;
  readonly key: string;
  /** Hash of what was sent. */
  readonly fingerprint: string;
}

/** The GPU that WebGPU gives when none is named; the only one that can be asked for. */
export const DEFAULT_GPU = "default";
