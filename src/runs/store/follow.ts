/**
 * Reading a run while it is written: each reader has a cursor of its own, so a slow one slows nobody down.
 *
 * @module
 */
import type { RunEvent } from "../../distill/run/events.ts";
import { isAtRest, isEnd } from "./run_states.ts";
import type { RunStore } from "./store.ts";

/** How to follow a run. */
export interface FollowOptions {
  /** Only events with a greater number (default 0). */
  readonly after?: number;
  /** Ends the reading. */
  readonly signal?: AbortSignal;
  /** When there is nothing more to wait for: the run's end (default), or also a pause. */
  readonly until?: "end" | "rest";
  /** Most events read at once (default 500). */
  readonly batch?: number;
}

/**
 * The events of a run in their order, in batches: first those that are stored, then each as it is stored. Ends after the last event
 * of a run that has come to its end.
 *
 * @throws {UnknownRunError} no such run
 *
 * @example
 * ```ts ignore
 * for await (const events of followRun(store, id)) for (const event of events) console.log(event.seq);
 * ```
 */
export async function* followRun(
  store: RunStore,
  id: string,
  { after = 0, signal, until = "end", batch = 500 }: FollowOptions = {},
): AsyncGenerator<readonly RunEvent[]> {
  let cursor = after;
  const change = new Change();
  using _listening = store.onChange(() => change.tell());
  const stop = () => change.tell();
  signal?.addEventListener("abort", stop);
  try {
    while (!signal?.aborted) {
      const changed = change.next();
      const events = await store.events(id, { after: cursor, limit: batch });
      if (events.length > 0) {
        cursor = events.at(-1)!.seq;
        yield events;
        continue;
      }
      const run = await store.get(id);
      // Removed while it was read.
      if (!run) return;
      const over = until === "end" ? isEnd(run.state) : isAtRest(run.state);
      if (over && run.seq <= cursor) return;
      if (run.seq <= cursor) await changed;
    }
  } finally {
    signal?.removeEventListener("abort", stop);
  }
}

/** Something that happens again and again. */
class Change {
  #waiting = Promise.withResolvers<void>();

  /** Fulfilled at the next change after this call. */
  next(): Promise<void> {
    return this.#waiting.promise;
  }

  tell(): void {
    this.#waiting.resolve();
    this.#waiting = Promise.withResolvers();
  }
}
