/**
 * Requests that may be sent again: what has the same Idempotency-Key makes one run.
 *
 * @module
 */
import { z } from "@hono/zod-openapi";
import { createHash } from "node:crypto";
import type { IdempotencyKey, RunStore, StoredRun } from "../runs/store/store.ts";
import { HttpError } from "./http/http_error.ts";

/** The header of such requests. */
export const idempotencyHeader = z.object({
  "idempotency-key": z.string().regex(/^[\x21-\x7e]{1,255}$/, "must be 1 to 255 visible ASCII characters")
    .optional()
    .openapi({
      description: "Sending the same request with the same key again within 24 h makes no second run",
    }),
});

/** A request as it came. */
export interface SentRequest {
  /** Name of whoever sent it: keys of different people do not meet. */
  readonly owner: string;
  readonly key: string | undefined;
  readonly body: string;
}

/** Lets each request with a key make one run. */
export class Idempotency {
  readonly #store: RunStore;
  readonly #inFlight = new Set<string>();

  constructor(store: RunStore) {
    this.#store = store;
  }

  /**
   * The run that a request makes, or that the same one made before.
   *
   * @throws {HttpError} 409 the same request is being worked on
   * @throws {IdempotencyError} the key was used for something else
   */
  async once(
    { owner, key, body }: SentRequest,
    submit: (key?: IdempotencyKey) => Promise<StoredRun>,
  ): Promise<StoredRun> {
    if (key === undefined) return await submit();
    const inUse = JSON.stringify([owner, key]);
    if (this.#inFlight.has(inUse)) {
      throw new HttpError(409, "a request with this idempotency key is being worked on", {
        code: "idempotency_key_in_use",
        headers: { "Retry-After": "1" },
      });
    }
    this.#inFlight.add(inUse);
    try {
      const known = { owner, key, fingerprint: createHash("sha256").update(body).digest("hex") };
      return await this.#store.findByKey(known) ?? await submit(known);
    } finally {
      this.#inFlight.delete(inUse);
    }
  }
}
