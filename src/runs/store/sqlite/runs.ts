/**
 * Runs in SQLite: what each is, and where it stands.
 *
 * @module
 */
import type { SQLInputValue } from "node:sqlite";
import type { NewRun, Page, RunProgress, RunQuery, StoredRun } from "../store.ts";
import { UnknownRunError } from "../store_errors.ts";
import type { SqliteConnection } from "./connection.ts";
import { runProgress, storedRun } from "./rows.ts";

/** Keeps a run of which nothing was said yet. */
export function insertRun(
  db: SqliteConnection,
  { manifest, recipe, folder, worker, owner = "", named, metadata = {} }: NewRun,
): void {
  db.run(
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

/** The run whose column has a value. */
export function findRun(
  db: SqliteConnection,
  column: "id" | "folder",
  value: string,
): StoredRun | undefined {
  const [row] = db.all(`SELECT * FROM runs WHERE ${column} = ?`, value);
  return row && storedRun(row);
}

/** @throws {UnknownRunError} no such run */
export function knownRun(db: SqliteConnection, id: string): StoredRun {
  const run = findRun(db, "id", id);
  if (!run) throw new UnknownRunError(id);
  return run;
}

/**
 * Where a run stands.
 *
 * @throws {UnknownRunError} no such run
 */
export function progressOf(db: SqliteConnection, id: string): RunProgress & { id: string } {
  const [row] = db.all(
    `SELECT state, asked, restarts, seq, attempt, step, loss, started, finished, result, error
     FROM runs WHERE id = ?`,
    id,
  );
  if (!row) throw new UnknownRunError(id);
  return { id, ...runProgress(row) };
}

/** Keeps where a run stands now. */
export function keepProgress(db: SqliteConnection, run: RunProgress & { id: string }): void {
  const json = (value: unknown) => value === null ? null : JSON.stringify(value);
  db.run(
    `UPDATE runs SET state = ?, asked = ?, restarts = ?, seq = ?, attempt = ?, step = ?, loss = ?,
       started = ?, finished = ?, result = ?, error = ? WHERE id = ?`,
    run.state,
    run.asked,
    run.restarts,
    run.seq,
    run.attempt,
    run.step,
    run.loss,
    run.startedAt,
    run.finishedAt,
    json(run.result),
    json(run.error),
    run.id,
  );
}

/** Runs from the newest to the oldest. */
export function listRuns(
  db: SqliteConnection,
  { after, limit = 20, states, metadata = {}, worker, task }: RunQuery,
): Page<StoredRun> {
  const [where, values]: [string[], SQLInputValue[]] = [[], []];
  if (after !== undefined) {
    where.push("(created, id) < (SELECT created, id FROM runs WHERE id = ?)");
    values.push(knownRun(db, after).id);
  }
  if (states) {
    where.push(`state IN (${states.map(() => "?").join(", ")})`);
    values.push(...states);
  }
  if (worker) {
    where.push("worker = ?");
    values.push(worker);
  }
  if (task) {
    where.push("coalesce(json_extract(recipe, '$.task'), 'distill') = ?");
    values.push(task);
  }
  for (const [name, value] of Object.entries(metadata)) {
    // As a table and not as a path: a name may hold any character.
    where.push("EXISTS (SELECT 1 FROM json_each(metadata) WHERE key = ? AND value = ?)");
    values.push(name, value);
  }
  const rows = db.all(
    `SELECT * FROM runs ${where.length > 0 ? `WHERE ${where.join(" AND ")}` : ""}
     ORDER BY created DESC, id DESC LIMIT ?`,
    ...values,
    limit + 1,
  );
  return { data: rows.slice(0, limit).map(storedRun), hasMore: rows.length > limit };
}

/** Ids that begin with a text, the oldest first. */
export function idsOf(db: SqliteConnection, beginning: string): string[] {
  return db.all(
    "SELECT id FROM runs WHERE substr(id, 1, ?) = ? ORDER BY created, id",
    beginning.length,
    beginning,
  ).map(({ id }) => String(id));
}
