/**
 * Things that are open for a while, such as streams and uploads: so many for each identity, and so many altogether.
 *
 * @module
 */
import { HttpError } from "./http_error.ts";

/** How many there may be. */
export interface PlaceLimits {
  /** For one identity. */
  readonly each: number;
  readonly all: number;
  /** What they are, in the plural, and the code of the error where there are no more. */
  readonly what: string;
  readonly code: string;
}

/** Seconds after which to try again: whatever is open may end at any moment. */
const RETRY_SECONDS = "5";

/**
 * Places to be taken and given back.
 *
 * @example
 * ```ts ignore
 * const uploads = new Places({ each: 4, all: 16, what: "uploads", code: "too_many_uploads" });
 * using place = uploads.take("ada");
 * ```
 */
export class Places {
  readonly #limits: PlaceLimits;
  readonly #taken = new Map<string, number>();
  #count = 0;

  constructor(limits: PlaceLimits) {
    this.#limits = limits;
  }

  /** Places that are taken. */
  get count(): number {
    return this.#count;
  }

  /**
   * Takes a place until it is disposed of, which may be done twice.
   *
   * @param name of the identity
   * @throws {HttpError} 429 it has as many as one may have; 503 there are as many as there may be
   */
  take(name: string): Disposable {
    const { each, all, what, code } = this.#limits;
    const own = this.#taken.get(name) ?? 0;
    const headers = { "Retry-After": RETRY_SECONDS };
    if (own >= each) {
      throw new HttpError(429, `you have ${each} ${what} already, as many as one may have at once`, {
        code,
        headers,
      });
    }
    if (this.#count >= all) {
      throw new HttpError(503, `there are ${all} ${what} already, as many as this service can have`, {
        code,
        headers,
      });
    }
    this.#taken.set(name, own + 1);
    this.#count++;
    let taken = true;
    return {
      [Symbol.dispose]: () => {
        if (!taken) return;
        taken = false;
        this.#count--;
        const left = this.#taken.get(name)! - 1;
        if (left > 0) this.#taken.set(name, left);
        else this.#taken.delete(name);
      },
    };
  }
}
