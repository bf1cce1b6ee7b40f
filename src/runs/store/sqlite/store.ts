/**
 * The store in one SQLite file, shared by all processes of a machine: write-ahead log, and every commit flushed to the disk.
 *
 * @module
 */
// @ts-types="../../../../types/std_path.d.ts"
import { join, resolve } from "@std/path";
import type { SQLInputValue } from "node:sqlite";
import type { RunEvent, RunEventBody, RunState } from "../../../distill/run/events.ts";
import { unwritable } from "../../../formats/files.ts";
import { isFileLocked } from "../run_lock.ts";
import { isAtRest, isEnd, mayBecome } from "../run_states.ts";
import { SqliteConnection } from "./connection.ts";
import { finite, storedEvent, storedRun } from "./rows.ts";
import type {
  EventQuery,
  GpuLease,
  IdempotencyKey,
  MetricsPoint,
  MetricsQuery,
  NewRun,
  Page,
  RunQuery,
  RunQueue,
  RunRequest,
  RunStore,
  RunWorker,
  StoredCheckpoint,
  StoredRun,
} from "../store.ts";
import { IdempotencyError, RunStateError, TakenIdError, UnknownRunError } from "../store_errors.ts";

/** Name of the file in the data folder. */
export const STORE_FILE = "limbeck.sqlite";

/** How long idempotency keys are kept, milliseconds. */
const KEY_AGE_MS = 24 * 3600 * 1000;

/** Keeps runs in SQLite. */
export class SqliteStore implements RunStore, RunQueue {
  readonly folder: string;
  readonly #connection: SqliteConnection;

  private constructor(folder: string, connection: SqliteConnection) {
    this.folder = folder;
    this.#connection = connection;
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
    const path = join(Deno.realPathSync(folder), STORE_FILE);
    return new SqliteStore(folder, new SqliteConnection(path));
  }

  // Runs

  create(run: NewRun, key?: IdempotencyKey): Promise<StoredRun> {
    return this.#connection.write(() => {
      const earlier = key && this.#runOfKey(key);
      if (earlier) return earlier;
      const { id, createdAt } = run.manifest;
      if (this.#find("id = ?", id)) throw new TakenIdError(id);
      this.#insertRun(run);
      this.#insertEvent(id, 1, createdAt, 0, { type: "state", state: "queued" });
      this.#connection.run("UPDATE runs SET seq = 1 WHERE id = ?", id);
      if (key) {
        this.#connection.run(
          "INSERT INTO idempotency_keys VALUES (?, ?, ?, ?, ?)",
          key.owner,
          key.key,
          key.fingerprint,
          id,
          createdAt,
        );
      }
      return this.#must(id);
    });
  }

  adopt(run: NewRun, events: readonly RunEvent[]): Promise<StoredRun> {
    return this.#connection.write(() => {
      const { id, createdAt } = run.manifest;
      this.#insertRun(run);
      const first: RunEvent = { seq: 1, time: createdAt, attempt: 0, type: "state", state: "queued" };
      for (const { seq, time, attempt, ...body } of events.length > 0 ? events : [first]) {
        this.#insertEvent(id, seq, time, attempt, body);
        this.#apply(id, time, body, true);
        this.#connection.run("UPDATE runs SET seq = ?, attempt = ? WHERE id = ?", seq, attempt, id);
      }
      return this.#must(id);
    });
  }

  move(id: string, folder: string): Promise<StoredRun> {
    return this.#connection.write(() => {
      this.#connection.run("UPDATE runs SET folder = ? WHERE id = ?", folder, id);
      return this.#must(id);
    });
  }

  get(id: string): Promise<StoredRun | undefined> {
    return this.#connection.read(() => this.#find("id = ?", id));
  }

  findByKey(key: IdempotencyKey): Promise<StoredRun | undefined> {
    return this.#connection.write(() => this.#runOfKey(key));
  }

  findByFolder(folder: string): Promise<StoredRun | undefined> {
    return this.#connection.read(() => this.#find("folder = ?", folder));
  }

  list({ after, limit = 20, states, metadata = {}, worker }: RunQuery = {}): Promise<Page<StoredRun>> {
    return this.#connection.read(() => {
      const [where, values]: [string[], SQLInputValue[]] = [[], []];
      if (after !== undefined) {
        where.push("(created, id) < (SELECT created, id FROM runs WHERE id = ?)");
        values.push(this.#must(after).id);
      }
      if (states) {
        where.push(`state IN (${states.map(() => "?").join(", ")})`);
        values.push(...states);
      }
      if (worker) {
        where.push("worker = ?");
        values.push(worker);
      }
      for (const [name, value] of Object.entries(metadata)) {
        // As a table and not as a path: a name may hold any character.
        where.push("EXISTS (SELECT 1 FROM json_each(metadata) WHERE key = ? AND value = ?)");
        values.push(name, value);
      }
      const rows = this.#connection.all(
        `SELECT * FROM runs ${where.length > 0 ? `WHERE ${where.join(" AND ")}` : ""}
         ORDER BY created DESC, id DESC LIMIT ?`,
        ...values,
        limit + 1,
      );
      return { data: rows.slice(0, limit).map(storedRun), hasMore: rows.length > limit };
    });
  }

  ids(beginning = ""): Promise<string[]> {
    return this.#connection.read(() =>
      this.#connection.all(
        "SELECT id FROM runs WHERE substr(id, 1, ?) = ? ORDER BY created, id",
        beginning.length,
        beginning,
      ).map(({ id }) => String(id))
    );
  }

  remove(id: string): Promise<void> {
    return this.#connection.write(() => {
      this.#connection.run("DELETE FROM runs WHERE id = ?", this.#must(id).id);
    });
  }

  // Events

  append(id: string, attempt: number, bodies: readonly RunEventBody[]): Promise<RunEvent[]> {
    return this.#connection.write(() => {
      const { seq } = this.#must(id);
      const time = new Date().toISOString();
      const events = bodies.map((body, i): RunEvent => ({ seq: seq + i + 1, time, attempt, ...body }));
      for (const [i, body] of bodies.entries()) {
        this.#insertEvent(id, seq + i + 1, time, attempt, body);
        this.#apply(id, time, body);
      }
      this.#connection.run(
        "UPDATE runs SET seq = ?, attempt = max(attempt, ?) WHERE id = ?",
        seq + bodies.length,
        attempt,
        id,
      );
      return events;
    });
  }

  events(id: string, query: EventQuery = {}): Promise<RunEvent[]> {
    return this.#connection.read(() => {
      const { after = 0, limit, types, attempt, holding, newestFirst } = query;
      const where = ["run = ?", newestFirst && after > 0 ? "seq < ?" : "seq > ?"];
      const values: SQLInputValue[] = [id, after];
      if (types) {
        where.push(`type IN (${types.map(() => "?").join(", ")})`);
        values.push(...types);
      }
      if (attempt !== undefined) {
        where.push("attempt = ?");
        values.push(attempt);
      }
      if (holding) where.push("superseded = 0");
      return this.#connection.all(
        `SELECT seq, time, attempt, body FROM events WHERE ${where.join(" AND ")}
         ORDER BY seq ${newestFirst ? "DESC" : "ASC"} LIMIT ?`,
        ...values,
        limit ?? -1,
      ).map(storedEvent);
    });
  }

  metrics(id: string, { from, to, points }: MetricsQuery): Promise<MetricsPoint[]> {
    return this.#connection.read(() => {
      const holds =
        "FROM events WHERE run = ? AND type = 'metrics' AND superseded = 0 AND step BETWEEN ? AND ?";
      const [range] = this.#connection.all(
        `SELECT min(step) AS first, max(step) AS last ${holds}`,
        id,
        from,
        to,
      );
      if (range?.first === null) return [];
      const [first, last] = [Number(range!.first), Number(range!.last)];
      const width = Math.max(1, Math.ceil((last - first + 1) / points));
      // Numbers are bound as floating point, so the part of a step must be cut to a whole one.
      return this.#connection.all(
        `WITH parts AS (
           SELECT max(step) AS last, count(*) AS steps, avg(body ->> '$.loss') AS mean,
             min(body ->> '$.loss') AS least, max(body ->> '$.loss') AS most
           ${holds} GROUP BY CAST((step - ?) / ? AS INTEGER))
         SELECT parts.*, events.body FROM parts JOIN events
         ON run = ? AND type = 'metrics' AND superseded = 0 AND step = last ORDER BY last`,
        id,
        from,
        to,
        first,
        width,
        id,
      ).map((row) => ({
        metrics: JSON.parse(String(row.body)),
        steps: Number(row.steps),
        loss: { mean: finite(row.mean), least: finite(row.least), most: finite(row.most) },
      }));
    });
  }

  checkpoints(id: string): Promise<StoredCheckpoint[]> {
    return this.#connection.read(() =>
      this.#connection.all("SELECT * FROM checkpoints WHERE run = ? ORDER BY step", id).map((row) => ({
        step: Number(row.step),
        path: String(row.path),
        best: row.best === 1,
        time: String(row.time),
      }))
    );
  }

  // What is asked of runs

  ask(id: string, request: RunRequest | null): Promise<void> {
    return this.#connection.write(() => {
      const { state } = this.#must(id);
      if (state !== "running" && request !== null) {
        throw new RunStateError(
          id,
          state,
          request === "checkpoint" ? "save a checkpoint" : `be asked to ${request}`,
        );
      }
      // Cancelling is for good.
      this.#connection.run("UPDATE runs SET asked = ? WHERE id = ? AND asked IS NOT 'cancel'", request, id);
    });
  }

  requeue(id: string, worker: RunWorker): Promise<StoredRun> {
    return this.#connection.write(() => {
      const run = this.#must(id);
      if (!mayBecome(run.state, "queued")) throw new RunStateError(id, run.state, "be resumed");
      const time = new Date().toISOString();
      this.#insertEvent(id, run.seq + 1, time, run.attempt, { type: "state", state: "queued" });
      this.#connection.run(
        `UPDATE runs SET state = 'queued', seq = seq + 1, worker = ?, asked = NULL, finished = NULL,
           restarts = 0 WHERE id = ?`,
        worker,
        id,
      );
      return this.#must(id);
    });
  }

  // The queue

  queued(limit = 100): Promise<StoredRun[]> {
    return this.#connection.read(() =>
      this.#connection.all("SELECT * FROM runs WHERE state = 'queued' ORDER BY created, id LIMIT ?", limit)
        .map(
          storedRun,
        )
    );
  }

  countByState(): Promise<Partial<Record<RunState, number>>> {
    return this.#connection.read(() =>
      Object.fromEntries(
        this.#connection.all("SELECT state, count(*) AS n FROM runs GROUP BY state").map((
          { state, n },
        ) => [state, Number(n)]),
      )
    );
  }

  countQueued(): Promise<number> {
    return this.#connection.read(() =>
      Number(this.#connection.all("SELECT count(*) AS n FROM runs WHERE state = 'queued'")[0]!.n)
    );
  }

  lease(gpu: string, wanted: GpuLease): Promise<GpuLease | undefined> {
    return this.#connection.write(() => {
      const [row] = this.#connection.all("SELECT holder, lock FROM leases WHERE gpu = ?", gpu);
      if (row && row.holder !== wanted.holder && isFileLocked(String(row.lock))) {
        return { holder: String(row.holder), lock: String(row.lock) };
      }
      this.#connection.run("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", gpu, wanted.holder, wanted.lock);
      return undefined;
    });
  }

  release(gpu: string, holder: string): Promise<void> {
    return this.#connection.write(() => {
      this.#connection.run("DELETE FROM leases WHERE gpu = ? AND holder = ?", gpu, holder);
    });
  }

  // Changes

  onChange(listener: () => void): Disposable {
    return this.#connection.onChange(listener);
  }

  isWritable(): Promise<boolean> {
    // A change that no reader looks at.
    const write = () =>
      this.#connection.run(
        "INSERT OR REPLACE INTO leases VALUES ('', 'nobody', ?)",
        new Date().toISOString(),
      );
    return this.#connection.write(write).then(
      () => true,
      () => false,
    );
  }

  close(): void {
    this.#connection.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  // Within

  #find(where: string, value: string): StoredRun | undefined {
    const [row] = this.#connection.all(`SELECT * FROM runs WHERE ${where}`, value);
    return row && storedRun(row);
  }

  #must(id: string): StoredRun {
    const run = this.#find("id = ?", id);
    if (!run) throw new UnknownRunError(id);
    return run;
  }

  #runOfKey({ owner, key, fingerprint }: IdempotencyKey): StoredRun | undefined {
    this.#connection.run(
      "DELETE FROM idempotency_keys WHERE created < ?",
      new Date(Date.now() - KEY_AGE_MS).toISOString(),
    );
    const [row] = this.#connection.all(
      "SELECT * FROM idempotency_keys WHERE owner = ? AND key = ?",
      owner,
      key,
    );
    if (!row) return undefined;
    if (row.fingerprint !== fingerprint) throw new IdempotencyError(key);
    return this.#must(String(row.run));
  }

  #insertRun({ manifest, recipe, folder, worker, owner = "", named, metadata = {} }: NewRun): void {
    this.#connection.run(
      `INSERT INTO runs (id, created, folder, worker, owner, state, manifest, recipe, named, metadata)
       VALUES (?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?)`,
      manifest.id,
      manifest.createdAt,
      folder,
      worker,
      owner,
      JSON.stringify(manifest),
      JSON.stringify(recipe),
      named === undefined ? null : JSON.stringify(named),
      JSON.stringify(metadata),
    );
  }

  #insertEvent(id: string, seq: number, time: string, attempt: number, body: RunEventBody): void {
    this.#connection.run(
      "INSERT INTO events (run, seq, time, attempt, type, step, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
      id,
      seq,
      time,
      attempt,
      body.type,
      "step" in body ? body.step : null,
      JSON.stringify(body),
    );
  }

  /** Lets an event show in the run. What a log of another machine says is believed. */
  #apply(id: string, time: string, body: RunEventBody, believed = false): void {
    switch (body.type) {
      case "state":
        return this.#changeState(id, time, body.state, believed);
      case "metrics":
        return this.#connection.run(
          "UPDATE runs SET step = ?, loss = ? WHERE id = ?",
          body.step,
          body.loss,
          id,
        );
      case "rewind":
        this.#connection.run(
          "UPDATE runs SET step = ?, loss = NULL WHERE id = ?",
          Math.max(0, body.step),
          id,
        );
        this.#connection.run("DELETE FROM checkpoints WHERE run = ? AND step > ?", id, body.step);
        return this.#connection.run(
          `UPDATE events SET superseded = 1
           WHERE run = ? AND type IN ('metrics', 'evaluation') AND step > ? AND superseded = 0`,
          id,
          body.step,
        );
      case "checkpoint":
        if (body.best) this.#connection.run("UPDATE checkpoints SET best = 0 WHERE run = ?", id);
        return this.#connection.run(
          "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?, ?)",
          id,
          body.step,
          body.path,
          body.best ? 1 : 0,
          time,
        );
      case "result":
        return this.#connection.run(
          "UPDATE runs SET result = ? WHERE id = ?",
          JSON.stringify(body.result),
          id,
        );
      case "error":
        return this.#connection.run("UPDATE runs SET error = ? WHERE id = ?", JSON.stringify(body), id);
    }
  }

  #changeState(id: string, time: string, state: RunState, believed: boolean): void {
    const run = this.#must(id);
    if (!believed && !mayBecome(run.state, state)) throw new RunStateError(id, run.state, `become ${state}`);
    this.#connection.run("UPDATE runs SET state = ? WHERE id = ?", state, id);
    if (state === "running") {
      this.#connection.run(
        "UPDATE runs SET started = coalesce(started, ?), finished = NULL, error = NULL WHERE id = ?",
        time,
        id,
      );
    } else if (state === "queued") {
      this.#connection.run("UPDATE runs SET restarts = restarts + 1, finished = NULL WHERE id = ?", id);
    } else if (isAtRest(state)) {
      this.#connection.run("UPDATE runs SET finished = ?, asked = NULL WHERE id = ?", time, id);
      if (isEnd(state) && state !== "failed") {
        this.#connection.run("UPDATE runs SET error = NULL WHERE id = ?", id);
      }
    }
  }
}
