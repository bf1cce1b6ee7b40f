/**
 * Rows of the store's tables as what they stand for.
 *
 * @module
 */
import type { RunEvent, RunState } from "../../../distill/run/events.ts";
import type { Row } from "./connection.ts";
import type { RunRequest, RunWorker, StoredRun } from "../store.ts";

/** A run from its row. */
export function storedRun(row: Row): StoredRun {
  const json = (name: string) => row[name] === null ? null : JSON.parse(String(row[name]));
  const text = (name: string) => row[name] === null ? null : String(row[name]);
  return {
    id: String(row.id),
    manifest: json("manifest"),
    recipe: json("recipe"),
    named: json("named"),
    folder: String(row.folder),
    worker: row.worker as RunWorker,
    owner: String(row.owner),
    metadata: json("metadata"),
    state: row.state as RunState,
    asked: row.asked as RunRequest | null,
    restarts: Number(row.restarts),
    seq: Number(row.seq),
    attempt: Number(row.attempt),
    step: Number(row.step),
    loss: row.loss === null ? null : Number(row.loss),
    startedAt: text("started"),
    finishedAt: text("finished"),
    result: json("result"),
    error: json("error"),
  };
}

/** A number that SQLite has computed, or null where there was none. */
export function finite(value: unknown): number | null {
  return typeof value === "number" ? value : null;
}

/** An event from its row. */
export function storedEvent(row: Row): RunEvent {
  return {
    seq: Number(row.seq),
    time: String(row.time),
    attempt: Number(row.attempt),
    ...JSON.parse(String(row.body)),
  };
}
