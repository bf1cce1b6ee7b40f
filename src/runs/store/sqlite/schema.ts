/**
 * The tables of the store in SQLite.
 *
 * @module
 */
import { DatabaseSync } from "node:sqlite";
import { InputError } from "../../../base/errors.ts";

/** Raised by one with each change of the tables; `MIGRATIONS[n]` leads from version n to n + 1. */
const MIGRATIONS: readonly string[] = [`
  CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    created TEXT NOT NULL,
    folder TEXT NOT NULL UNIQUE,
    worker TEXT NOT NULL,
    owner TEXT NOT NULL,
    state TEXT NOT NULL,
    manifest TEXT NOT NULL,
    recipe TEXT NOT NULL,
    named TEXT,
    metadata TEXT NOT NULL,
    asked TEXT,
    restarts INTEGER NOT NULL DEFAULT 0,
    seq INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    step INTEGER NOT NULL DEFAULT 0,
    loss REAL,
    started TEXT,
    finished TEXT,
    result TEXT,
    error TEXT
  ) STRICT;
  CREATE INDEX runs_by_age ON runs (created, id);
  CREATE INDEX runs_by_state ON runs (state, created, id);

  CREATE TABLE events (
    run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    time TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    type TEXT NOT NULL,
    step INTEGER,
    superseded INTEGER NOT NULL DEFAULT 0,
    body TEXT NOT NULL,
    PRIMARY KEY (run, seq)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX events_by_type ON events (run, type, seq);
  CREATE INDEX metrics_by_step ON events (run, step) WHERE type = 'metrics' AND superseded = 0;

  CREATE TABLE checkpoints (
    run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    path TEXT NOT NULL,
    best INTEGER NOT NULL,
    time TEXT NOT NULL,
    PRIMARY KEY (run, step)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE leases (
    gpu TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    lock TEXT NOT NULL
  ) STRICT;

  CREATE TABLE idempotency_keys (
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    created TEXT NOT NULL,
    PRIMARY KEY (owner, key)
  ) STRICT, WITHOUT ROWID;
`];

/**
 * Opens the database and brings its tables up to date. A change is on the disk when it is committed.
 *
 * @throws {InputError} the file is no such database, or a newer version of Limbeck made it
 */
export function openDatabase(path: string): DatabaseSync {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(path);
    database.exec(`
      PRAGMA busy_timeout = 10000;
      PRAGMA journal_mode = WAL;
      PRAGMA synchronous = FULL;
      PRAGMA foreign_keys = ON;
    `);
    migrate(database, path);
    return database;
  } catch (cause) {
    database?.close();
    if (cause instanceof InputError) throw cause;
    throw new InputError(`the store of runs cannot be opened: ${(cause as Error).message}`, {
      where: path,
      hint:
        "It must be a file that this user may write, on a disk with free space. If it is damaged, move it away: runs can be resumed by their folders.",
      cause,
    });
  }
}

/** Writes only where there is something to change: a store must open on a full disk too. */
function migrate(database: DatabaseSync, path: string): void {
  if (versionOf(database) === MIGRATIONS.length) return;
  database.exec("BEGIN IMMEDIATE");
  try {
    // Another process may have been faster.
    const version = versionOf(database);
    if (version > MIGRATIONS.length) {
      throw new InputError(`the store was made by a newer version of Limbeck`, {
        where: path,
        hint: "Use that version, or another data folder.",
      });
    }
    for (const migration of MIGRATIONS.slice(version)) database.exec(migration);
    database.exec(`PRAGMA user_version = ${MIGRATIONS.length}`);
    database.exec("COMMIT");
  } catch (error) {
    // A full disk has rolled it back already.
    if (database.isTransaction) database.exec("ROLLBACK");
    throw error;
  }
}

function versionOf(database: DatabaseSync): number {
  return (database.prepare("PRAGMA user_version").get() as { user_version: number }).user_version;
}
