/**
 * Texts that end a text.
 *
 * @module
 */

/**
 * Hands a growing text on, up to the first of some texts that are to end it. What may be the beginning of one is held back.
 *
 * @example
 * ```ts
 * const stop = new StopText(["\n\n"]);
 * stop.push("Hello\n"); // "Hello": a line end may be the first of two
 * stop.push("\nWorld"); // "", and stop.stopped
 * ```
 */
export class StopText {
  readonly #stops: readonly string[];
  #held = "";
  #given = 0;
  #stopped = false;

  /** @param stops empty ones never end a text */
  constructor(stops: readonly string[]) {
    this.#stops = stops.filter((stop) => stop !== "");
  }

  /** Whether one of the texts has come. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Takes the next piece; returns what is certain to stand before any of the texts. */
  push(piece: string): string {
    if (this.#stopped) return "";
    const text = this.#held + piece;
    const at = Math.min(...this.#stops.map((stop) => text.indexOf(stop)).filter((i) => i >= 0));
    this.#stopped = Number.isFinite(at);
    const end = this.#stopped ? at : text.length - this.#beginnings(text);
    this.#held = text.slice(end);
    this.#given += end;
    return text.slice(0, end);
  }

  /**
   * What is left once the text is whole.
   *
   * @param whole all of it: its last characters may have come in no piece
   */
  end(whole: string): string {
    if (this.#stopped) return "";
    const already = this.#given + this.#held.length;
    return this.push(whole.slice(already)) + (this.#stopped ? "" : this.#held);
  }

  /** Characters at the end of a text that begin one of the texts. */
  #beginnings(text: string): number {
    let longest = 0;
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
        if (text.endsWith(stop.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}
