/**
 * Ends what shows no sign of life.
 *
 * @module
 */

type Timer = ReturnType<typeof setTimeout>;

/** Calls back when nothing was heard for the time that was expected last. */
export class Watchdog {
  #timer: Timer | undefined;
  #after: Timer | undefined;
  readonly #bite: () => Timer;

  /** @param bite starts to end it; returns the timer of the last resort */
  constructor(bite: () => Timer) {
    this.#bite = bite;
  }

  /** Something must be heard within this time. */
  expect(milliseconds: number): void {
    if (this.#after !== undefined) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#after = this.#bite(), milliseconds);
  }

  /** Nothing more is expected. */
  end(): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#after);
  }
}
