/**
 * Runs wherever they are kept: in a store on this machine, or behind a service. Verbs speak to both in the same words.
 *
 * @module
 */
import type { RunEvent } from "../../distill/run/events.ts";
import { followRun } from "./follow.ts";
import { findRun } from "./run_folder.ts";
import { askOfRun } from "./run_actions.ts";
import { type RunSummary, summarise } from "./run_summary.ts";
import type { RunRequest, Store } from "./store.ts";

/** What can be asked of runs. */
export interface RunAccess {
  /** The newest runs, the oldest of them first. */
  list(limit: number): Promise<RunSummary[]>;
  /**
   * The run that `name` means: an id, the beginning of one, or `last`.
   *
   * @throws {InputError} no such run, or several
   */
  find(name: string): Promise<RunSummary>;
  /** Its events after a number, in batches; where `follow` says so, also those that are still to come. */
  events(id: string, options: ReadEventsOptions): AsyncIterable<readonly RunEvent[]>;
  /**
   * Asks something of a run.
   *
   * @throws {RunStateError} it makes no sense in its state
   */
  ask(id: string, request: RunRequest): Promise<void>;
}

/** Which events to read. */
export interface ReadEventsOptions {
  readonly after: number;
  readonly follow: boolean;
  readonly signal?: AbortSignal;
}

/** Runs in a store on this machine. */
export class LocalRuns implements RunAccess {
  readonly #store: Store;

  constructor(store: Store) {
    this.#store = store;
  }

  async list(limit: number): Promise<RunSummary[]> {
    return (await this.#store.list({ limit })).data.map(summarise).reverse();
  }

  async find(name: string): Promise<RunSummary> {
    return summarise(await findRun(name, this.#store));
  }

  async *events(
    id: string,
    { after, follow, signal }: ReadEventsOptions,
  ): AsyncIterable<readonly RunEvent[]> {
    if (follow) yield* followRun(this.#store, id, { after, until: "rest", ...(signal ? { signal } : {}) });
    else yield await this.#store.events(id, { after });
  }

  async ask(id: string, request: RunRequest): Promise<void> {
    await askOfRun(this.#store, (await this.#store.get(id))!, request);
  }
}
