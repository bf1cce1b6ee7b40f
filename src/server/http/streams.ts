/**
 * Streams of events to readers. Each has its own cursor in the store and is written only as fast as its reader reads. They are known
 * here, because a server waits for open streams before it ends.
 *
 * @module
 */
import type { RunEvent } from "../../distill/run/events.ts";
import { followRun } from "../../runs/store/follow.ts";
import type { RunStore } from "../../runs/store/store.ts";
import { HttpError } from "./http_error.ts";
import { Places } from "./places.ts";

/** Readers at once: of one identity, and of all. */
const MOST_EACH = 100;
const MOST_STREAMS = 1000;
/** A comment is sent so often where there is nothing else, milliseconds. */
const HEARTBEAT_MS = 15_000;
/** Events encoded at once. */
const BATCH = 100;

const encoder = new TextEncoder();

/** Open streams. */
export class Streams {
  readonly #open = new Set<AbortController>();
  readonly #places = new Places({
    each: MOST_EACH,
    all: MOST_STREAMS,
    what: "streams of events",
    code: "too_many_streams",
  });
  readonly #heartbeat: number;
  #closed = false;

  /** @param heartbeat milliseconds between signs of life */
  constructor(heartbeat: number = HEARTBEAT_MS) {
    this.#heartbeat = heartbeat;
  }

  /** Readers that are connected. */
  get count(): number {
    return this.#places.count;
  }

  /**
   * The events of a run as server-sent events, from `after` on: what is stored at once, the rest as it comes. Ends with the run.
   *
   * @param reader name of the identity that reads
   * @param show what of an event the reader sees
   * @throws {HttpError} 429 the reader has as many streams as one may; 503 there are as many as there may be, or the service ends
   */
  events(
    store: RunStore,
    { id, after, reader }: { id: string; after: number; reader: string },
    show: (event: RunEvent) => unknown,
  ): ReadableStream<Uint8Array> {
    if (this.#closed) {
      throw new HttpError(503, "the service is ending", {
        code: "not_ready",
        headers: { "Retry-After": "5" },
      });
    }
    const place = this.#places.take(reader);
    const abort = new AbortController();
    this.#open.add(abort);
    const end = () => {
      place[Symbol.dispose]();
      this.#open.delete(abort);
      abort.abort();
    };
    const batches = followRun(store, id, { after, signal: abort.signal, batch: BATCH });
    const heartbeat = this.#heartbeat;
    let next: Promise<IteratorResult<readonly RunEvent[]>> | undefined;
    return new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(encoder.encode("retry: 1000\n\n"));
      },
      async pull(controller) {
        next ??= batches.next();
        let timer: ReturnType<typeof setTimeout> | undefined;
        const silence = new Promise<undefined>((resolve) =>
          timer = setTimeout(() => resolve(undefined), heartbeat)
        );
        const got = await Promise.race([next, silence]).finally(() => clearTimeout(timer));
        if (got === undefined) return controller.enqueue(encoder.encode(": alive\n\n"));
        next = undefined;
        if (got.done) {
          end();
          return controller.close();
        }
        const text = got.value.map((event) => `id: ${event.seq}\ndata: ${JSON.stringify(show(event))}\n\n`)
          .join("");
        controller.enqueue(encoder.encode(text));
      },
      async cancel() {
        end();
        await batches.return(undefined).catch(() => {});
      },
    }, { highWaterMark: 1 });
  }

  /** Ends all streams; readers connect again and go on where they were. */
  close(): void {
    this.#closed = true;
    for (const abort of this.#open) abort.abort();
  }
}
