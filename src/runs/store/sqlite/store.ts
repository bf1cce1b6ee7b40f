/**
 * The store in one SQLite file, shared by all processes of a machine: write-ahead log, and every commit flushed to the disk.
 *
 * @module
 */
// @ts-types="../../../../types/std_path.d.ts"
import { join, resolve } from "@std/path";
import type { RunEvent, RunEventBody, RunState, StateEvent } from "../../../distill/run/events.ts";
import { unreadable, unwritable } from "../../../formats/files.ts";
import { afterAsking, afterEvent, afterLog } from "../run_progress.ts";
import type {
  EventQuery,
  GpuLease,
  IdempotencyKey,
  MetricsPoint,
  MetricsQuery,
  NewRun,
  Page,
  RunProgress,
  RunQuery,
  RunRequest,
  RunWorker,
  Store,
  StoredCheckpoint,
  StoredRun,
} from "../store.ts";
import { TakenIdError } from "../store_errors.ts";
import { SqliteConnection } from "./connection.ts";
import { checkpointsOf, eventsOf, insertEvent } from "./events.ts";
import { keepKey, runOfKey } from "./idempotency.ts";
import { metricsOf } from "./metrics.ts";
import { countByState, countQueued, giveBackLease, queuedRuns, takeLease } from "./queue.ts";
import { findRun, idsOf, insertRun, keepProgress, knownRun, listRuns, progressOf } from "./runs.ts";

/** Name of the file in the data folder. */
const STORE_FILE = "limbeck.sqlite";

/** Keeps runs in SQLite. */
export class SqliteStore implements Store {
  readonly folder: string;
  readonly #db: SqliteConnection;

  private constructor(folder: string, db: SqliteConnection) {
    this.folder = folder;
    this.#db = db;
  }

  /**
   * Opens the store of a data folder, which is made where it is not there.
   *
   * @throws {InputError} the folder cannot be made, or its store cannot be opened
   */
  static open(dataFolder: string): SqliteStore {
    const folder = resolve(dataFolder);
    try {
      Deno.mkdirSync(folder, { recursive: true });
    } catch (error) {
      throw unwritable(folder, error);
    }
    return new SqliteStore(folder, new SqliteConnection(join(Deno.realPathSync(folder), STORE_FILE)));
  }

  /**
   * Whether a data folder has a store.
   *
   * @throws {InputError} the folder cannot be read
   */
  static async isIn(dataFolder: string): Promise<boolean> {
    try {
      await Deno.stat(join(dataFolder, STORE_FILE));
      return true;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return false;
      throw unreadable(dataFolder, error);
    }
  }

  // Runs

  create(run: NewRun, key?: IdempotencyKey): Promise<StoredRun> {
    return this.#db.write(() => {
      const earlier = key && runOfKey(this.#db, key);
      if (earlier !== undefined) return knownRun(this.#db, earlier);
      const { id, createdAt } = run.manifest;
      if (findRun(this.#db, "id", id)) throw new TakenIdError(id);
      insertRun(this.#db, run);
      this.#tell(progressOf(this.#db, id), createdAt, 0, { type: "state", state: "queued" });
      if (key) keepKey(this.#db, key, id, createdAt);
      return knownRun(this.#db, id);
    });
  }

  adopt(run: NewRun, events: readonly RunEvent[]): Promise<StoredRun> {
    return this.#db.write(() => {
      const { id, createdAt } = run.manifest;
      insertRun(this.#db, run);
      const first: RunEvent = { seq: 1, time: createdAt, attempt: 0, type: "state", state: "queued" };
      const log = events.length > 0 ? events : [first];
      for (const event of log) insertEvent(this.#db, id, event);
      keepProgress(this.#db, afterLog(progressOf(this.#db, id), log));
      return knownRun(this.#db, id);
    });
  }

  move(id: string, folder: string): Promise<StoredRun> {
    return this.#db.write(() => {
      this.#db.run("UPDATE runs SET folder = ? WHERE id = ?", folder, id);
      return knownRun(this.#db, id);
    });
  }

  get(id: string): Promise<StoredRun | undefined> {
    return this.#db.read(() => findRun(this.#db, "id", id));
  }

  findByKey(key: IdempotencyKey): Promise<StoredRun | undefined> {
    return this.#db.write(() => {
      const id = runOfKey(this.#db, key);
      return id === undefined ? undefined : knownRun(this.#db, id);
    });
  }

  findByFolder(folder: string): Promise<StoredRun | undefined> {
    return this.#db.read(() => findRun(this.#db, "folder", folder));
  }

  list(query: RunQuery = {}): Promise<Page<StoredRun>> {
    return this.#db.read(() => listRuns(this.#db, query));
  }

  ids(beginning = ""): Promise<string[]> {
    return this.#db.read(() => idsOf(this.#db, beginning));
  }

  remove(id: string): Promise<void> {
    return this.#db.write(() => {
      this.#db.run("DELETE FROM runs WHERE id = ?", knownRun(this.#db, id).id);
    });
  }

  // Events

  append(id: string, attempt: number, bodies: readonly RunEventBody[]): Promise<RunEvent[]> {
    return this.#db.write(() =>
      this.#tell(progressOf(this.#db, id), new Date().toISOString(), attempt, ...bodies)
    );
  }

  events(id: string, query: EventQuery = {}): Promise<RunEvent[]> {
    return this.#db.read(() => eventsOf(this.#db, id, query));
  }

  metrics(id: string, query: MetricsQuery): Promise<MetricsPoint[]> {
    return this.#db.read(() => metricsOf(this.#db, id, query));
  }

  checkpoints(id: string): Promise<StoredCheckpoint[]> {
    return this.#db.read(() => checkpointsOf(this.#db, id));
  }

  // What is asked of runs

  ask(id: string, request: RunRequest | null): Promise<void> {
    return this.#db.write(() => keepProgress(this.#db, afterAsking(progressOf(this.#db, id), request)));
  }

  requeue(id: string, worker: RunWorker, by: StateEvent["by"] = "request"): Promise<StoredRun> {
    return this.#db.write(() => {
      const run = progressOf(this.#db, id);
      this.#tell(run, new Date().toISOString(), run.attempt, { type: "state", state: "queued", by });
      this.#db.run("UPDATE runs SET worker = ? WHERE id = ?", worker, id);
      return knownRun(this.#db, id);
    });
  }

  // The queue

  queued(limit = 100): Promise<StoredRun[]> {
    return this.#db.read(() => queuedRuns(this.#db, limit));
  }

  countByState(): Promise<Partial<Record<RunState, number>>> {
    return this.#db.read(() => countByState(this.#db));
  }

  countQueued(): Promise<number> {
    return this.#db.read(() => countQueued(this.#db));
  }

  lease(
    gpu: string,
    wanted: GpuLease,
    lives: (holder: GpuLease) => boolean,
  ): Promise<GpuLease | undefined> {
    return this.#db.write(() => takeLease(this.#db, gpu, wanted, lives));
  }

  release(gpu: string, holder: string): Promise<void> {
    return this.#db.write(() => giveBackLease(this.#db, gpu, holder));
  }

  // Changes

  onChange(listener: () => void): Disposable {
    return this.#db.onChange(listener);
  }

  isWritable(): Promise<boolean> {
    // A change that no reader looks at.
    const nobody = { holder: "nobody", lock: new Date().toISOString() };
    return this.lease("", nobody, () => false).then(() => true, () => false);
  }

  close(): void {
    this.#db.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Numbers events and keeps them, and where the run stands after them. */
  #tell(
    before: RunProgress & { id: string },
    time: string,
    attempt: number,
    ...bodies: readonly RunEventBody[]
  ): RunEvent[] {
    let run = before;
    const events = bodies.map((body): RunEvent => {
      const event = { seq: run.seq + 1, time, attempt, ...body };
      run = afterEvent(run, event);
      insertEvent(this.#db, run.id, event);
      return event;
    });
    keepProgress(this.#db, run);
    return events;
  }
}
