/**
 * How fast a server is asked.
 *
 * @module
 */
import { pause } from "../hub/hub_requests.ts";

/** What a server allows. */
export interface PaceLimits {
  readonly concurrency: number;
  readonly requestsPerMinute?: number;
  readonly tokensPerMinute?: number;
}

/** A clock, in milliseconds; tests have one of their own. */
export interface Clock {
  now(): number;
  wait(milliseconds: number, signal?: AbortSignal): Promise<void>;
}

/** The machine's own. */
export const MACHINE_CLOCK: Clock = { now: () => performance.now(), wait: pause };

const MINUTE = 60_000;

/**
 * Lets requests pass, evenly over each minute, so that no minute has more than its share wherever it is taken to begin; and no more than
 * some at once.
 */
export class Pace {
  readonly #limits: PaceLimits;
  readonly #clock: Clock;
  readonly #waiting: (() => void)[] = [];
  #working = 0;
  /** When the next one may begin. */
  #next = 0;

  constructor(limits: PaceLimits, clock: Clock = MACHINE_CLOCK) {
    [this.#limits, this.#clock] = [limits, clock];
  }

  /**
   * Does some work when its turn has come.
   *
   * @param tokens what it may use
   */
  async turn<T>(tokens: number, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (this.#working >= this.#limits.concurrency) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    } else this.#working++;
    try {
      signal?.throwIfAborted();
      await this.#begin(tokens, signal);
      return await work();
    } finally {
      // Whoever waits takes the place over.
      const next = this.#waiting.shift();
      if (next) next();
      else this.#working--;
    }
  }

  /** Nothing begins for so long: the server asks for it. */
  holdBack(milliseconds: number): void {
    this.#next = Math.max(this.#next, this.#clock.now() + milliseconds);
  }

  async #begin(tokens: number, signal?: AbortSignal): Promise<void> {
    const { requestsPerMinute = Infinity, tokensPerMinute = Infinity } = this.#limits;
    const share = Math.max(MINUTE / requestsPerMinute, MINUTE * tokens / tokensPerMinute);
    for (;;) {
      const now = this.#clock.now();
      if (now >= this.#next) {
        this.#next = now + share;
        return;
      }
      await this.#clock.wait(this.#next - now, signal);
    }
  }
}
