/**
 * A connection to the store's database: transactions, statements, and the news that something has changed.
 *
 * @module
 */
import type { DatabaseSync, SQLInputValue, StatementSync } from "node:sqlite";
import { LimbeckError } from "../../../base/errors.ts";
import { openDatabase } from "./schema.ts";
import { StoreError } from "../store_errors.ts";

/** How often changes of other processes are looked for, milliseconds. */
const POLL_MS = 250;

/** A row of a table. */
export type Row = Record<string, unknown>;

/** A connection. Work is synchronous within; it stands behind promises so that a database elsewhere can do it too. */
export class SqliteConnection {
  readonly #path: string;
  readonly #database: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  readonly #listeners = new Set<() => void>();
  #poll: ReturnType<typeof setInterval> | undefined;
  #seen = 0;
  #closed = false;

  /** @throws {InputError} the file is no such database, or a newer version of Limbeck made it */
  constructor(path: string) {
    this.#path = path;
    this.#database = openDatabase(path);
  }

  /** All rows of a query. */
  all(sql: string, ...values: SQLInputValue[]): Row[] {
    return this.#statement(sql).all(...values) as Row[];
  }

  /** Does what has no rows. */
  run(sql: string, ...values: SQLInputValue[]): void {
    this.#statement(sql).run(...values);
  }

  /** Reads. */
  async read<T>(work: () => T): Promise<T> {
    return await Promise.resolve(work());
  }

  /**
   * Writes: all of it or nothing, flushed to the disk.
   *
   * @throws {StoreError} it could not be written
   */
  async write<T>(work: () => T): Promise<T> {
    let value: T;
    try {
      this.#database.exec("BEGIN IMMEDIATE");
      try {
        value = work();
        this.#database.exec("COMMIT");
      } catch (error) {
        if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
        throw error;
      }
    } catch (error) {
      throw error instanceof LimbeckError ? error : new StoreError(this.#path, error);
    }
    this.#tell();
    return await Promise.resolve(value);
  }

  /** Calls back after each change, of this process or another, until disposed of. */
  onChange(listener: () => void): Disposable {
    this.#listeners.add(listener);
    if (this.#poll === undefined) {
      this.#seen = this.#version();
      this.#poll = setInterval(() => {
        const version = this.#version();
        if (version !== this.#seen) this.#tell();
        this.#seen = version;
      }, POLL_MS);
    }
    return {
      [Symbol.dispose]: () => {
        this.#listeners.delete(listener);
        if (this.#listeners.size === 0) this.#stopPolling();
      },
    };
  }

  /** Closes it. Calling it twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stopPolling();
    this.#database.close();
  }

  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (!statement) this.#statements.set(sql, statement = this.#database.prepare(sql));
    return statement;
  }

  /** Rises with what other connections commit. */
  #version(): number {
    return Number((this.#database.prepare("PRAGMA data_version").get() as Row).data_version);
  }

  #tell(): void {
    for (const listener of this.#listeners) queueMicrotask(listener);
  }

  #stopPolling(): void {
    clearInterval(this.#poll);
    this.#poll = undefined;
  }
}
