/**
 * Events in SQLite, and what is looked up of them without reading them all: which of them hold, and checkpoints.
 *
 * @module
 */
import type { SQLInputValue } from "node:sqlite";
import type { RunEvent } from "../../../distill/run/events.ts";
import type { EventQuery, StoredCheckpoint } from "../store.ts";
import type { SqliteConnection } from "./connection.ts";
import { storedEvent } from "./rows.ts";

/** Keeps an event, and lets it show in what holds. */
export function insertEvent(db: SqliteConnection, id: string, event: RunEvent): void {
  const { seq, time, attempt, ...body } = event;
  db.run(
    "INSERT INTO events (run, seq, time, attempt, type, step, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
    id,
    seq,
    time,
    attempt,
    event.type,
    "step" in event ? event.step : null,
    JSON.stringify(body),
  );
  if (event.type === "rewind") {
    db.run("DELETE FROM checkpoints WHERE run = ? AND step > ?", id, event.step);
    db.run(
      `UPDATE events SET superseded = 1
       WHERE run = ? AND type IN ('metrics', 'evaluation') AND step > ? AND superseded = 0`,
      id,
      event.step,
    );
  } else if (event.type === "checkpoint") {
    if (event.best) db.run("UPDATE checkpoints SET best = 0 WHERE run = ?", id);
    db.run(
      "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?, ?)",
      id,
      event.step,
      event.path,
      event.best ? 1 : 0,
      time,
    );
  }
}

/** Events of a run in the order of their numbers. */
export function eventsOf(
  db: SqliteConnection,
  id: string,
  { after = 0, limit, types, attempt, holding, newestFirst }: EventQuery,
): RunEvent[] {
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
  return db.all(
    `SELECT seq, time, attempt, body FROM events WHERE ${where.join(" AND ")}
     ORDER BY seq ${newestFirst ? "DESC" : "ASC"} LIMIT ?`,
    ...values,
    limit ?? -1,
  ).map(storedEvent);
}

/** Checkpoints that hold, by step. */
export function checkpointsOf(db: SqliteConnection, id: string): StoredCheckpoint[] {
  return db.all("SELECT * FROM checkpoints WHERE run = ? ORDER BY step", id).map((row) => ({
    step: Number(row.step),
    path: String(row.path),
    best: row.best === 1,
    time: String(row.time),
  }));
}
