/**
 * The queue and the leases of GPUs in SQLite.
 *
 * @module
 */
import type { RunState } from "../../../distill/run/events.ts";
import type { GpuLease, StoredRun } from "../store.ts";
import type { SqliteConnection } from "./connection.ts";
import { storedRun } from "./rows.ts";

/** Queued runs, the oldest first. */
export function queuedRuns(db: SqliteConnection, limit: number): StoredRun[] {
  return db.all("SELECT * FROM runs WHERE state = 'queued' ORDER BY created, id LIMIT ?", limit)
    .map(storedRun);
}

/** How many runs are in each state that a run is in. */
export function countByState(db: SqliteConnection): Partial<Record<RunState, number>> {
  const rows = db.all("SELECT state, count(*) AS n FROM runs GROUP BY state");
  return Object.fromEntries(rows.map(({ state, n }) => [state, Number(n)]));
}

/** How many runs wait: asked at each submission, so it looks at no others. */
export function countQueued(db: SqliteConnection): number {
  return Number(db.all("SELECT count(*) AS n FROM runs WHERE state = 'queued'")[0]!.n);
}

/** Takes a lease, or says which other one lives. */
export function takeLease(
  db: SqliteConnection,
  gpu: string,
  wanted: GpuLease,
  lives: (holder: GpuLease) => boolean,
): GpuLease | undefined {
  const [row] = db.all("SELECT holder, lock FROM leases WHERE gpu = ?", gpu);
  const held = row && { holder: String(row.holder), lock: String(row.lock) };
  if (held && held.holder !== wanted.holder && lives(held)) return held;
  db.run("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", gpu, wanted.holder, wanted.lock);
  return undefined;
}

/** Gives a lease back that a holder has. */
export function giveBackLease(db: SqliteConnection, gpu: string, holder: string): void {
  db.run("DELETE FROM leases WHERE gpu = ? AND holder = ?", gpu, holder);
}
