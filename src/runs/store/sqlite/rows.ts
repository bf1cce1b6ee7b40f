/**
 * Rows of the store's tables as what they stand for.
 *
 * @module
 */
import type { RunEvent, RunState } from "../../../distill/run/events.ts";
import type { Row } from "./connection.ts";
import type { RunProgress, RunRequest, RunWorker, StoredRun } from "../store.ts";

/** A run from its row. */
export function storedRun(row: Row): StoredRun {
  return {
    id: String(row.id),
    manifest: json(row.manifest),
    recipe: json(row.recipe),
    named: json(row.named),
    folder: String(row.folder),
    worker: row.worker as RunWorker,
    owner: String(row.owner),
    metadata: json(row.metadata),
    ...runProgress(row),
  };
}

/** Where a run stands, from its row. */
export function runProgress(row: Row): RunProgress {
  return {
    state: row.state as RunState,
    asked: row.asked as RunRequest | null,
    restarts: Number(row.restarts),
    seq: Number(row.seq),
    attempt: Number(row.attempt),
    step: Number(row.step),
    loss: row.loss === null ? null : Number(row.loss),
    startedAt: text(row.started),
    finishedAt: text(row.finished),
    result: json(row.result),
    error: json(row.error),
  };
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

function text(value: unknown): string | null {
  return value === null ? null : String(value);
}

function json(value: unknown) {
  return value === null ? null : JSON.parse(String(value));
}
