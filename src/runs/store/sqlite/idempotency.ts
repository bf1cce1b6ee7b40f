/**
 * Requests that are sent again, told from new ones by their keys, in SQLite.
 *
 * @module
 */
import type { IdempotencyKey } from "../store.ts";
import { IdempotencyError } from "../store_errors.ts";
import type { SqliteConnection } from "./connection.ts";

/** How long keys are kept, milliseconds. */
const KEY_AGE_MS = 24 * 3600 * 1000;

/**
 * Id of the run that was made with a key. Keys that are too old are forgotten.
 *
 * @throws {IdempotencyError} the key was used for something else
 */
export function runOfKey(
  db: SqliteConnection,
  { owner, key, fingerprint }: IdempotencyKey,
): string | undefined {
  db.run(
    "DELETE FROM idempotency_keys WHERE created < ?",
    new Date(Date.now() - KEY_AGE_MS).toISOString(),
  );
  const [row] = db.all("SELECT * FROM idempotency_keys WHERE owner = ? AND key = ?", owner, key);
  if (!row) return undefined;
  if (row.fingerprint !== fingerprint) throw new IdempotencyError(key);
  return String(row.run);
}

/** Keeps the key that a run was made with. */
export function keepKey(
  db: SqliteConnection,
  { owner, key, fingerprint }: IdempotencyKey,
  id: string,
  createdAt: string,
): void {
  db.run("INSERT INTO idempotency_keys VALUES (?, ?, ?, ?, ?)", owner, key, fingerprint, id, createdAt);
}
