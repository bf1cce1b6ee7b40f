/**
 * A search as it is watched: a line that is redrawn on a terminal, now and then a plain one elsewhere.
 *
 * @module
 */
import { count, duration, number3 } from "../../base/units.ts";
import type { SearchProgress } from "../../shape/depth/measured_search.ts";
import type { Output } from "./output.ts";

/** Where no line can be redrawn, milliseconds between lines. */
const PLAIN_INTERVAL_MS = 5000;

/** Shows how far a search is, and how long it will take. */
export class SearchProgressLine {
  readonly #out: Output;
  readonly #now: () => number;
  #begin: number;
  /** Evaluations that took time. */
  #measured = 0;
  #last: number;
  #shown = false;

  /** @param now clock in milliseconds */
  constructor(out: Output, now: () => number = () => performance.now()) {
    [this.#out, this.#now] = [out, now];
    this.#begin = this.#last = now();
  }

  /** Shows an evaluation. */
  show({ done, total, kept, values, reused }: SearchProgress): void {
    if (!reused) this.#measured++;
    // What was remembered came at once, and says nothing of the time that the others take.
    else if (this.#measured === 0) this.#begin = this.#now();
    if (this.#out.json) return;
    const pace = (this.#now() - this.#begin) / 1000 / Math.max(1, this.#measured);
    const left = this.#measured === 0 ? "" : `  at most ${duration((total - done) * pace)} left`;
    const figures = Object.entries(values).map(([name, value]) => `${name} ${number3(value)}`).join("  ");
    this.#write(`${done} of ${total} subsets  kept ${kept.join(",")}  ${figures}${left}`);
  }

  /** Shows on how many tokens of how many the inputs of layers have been looked at. */
  tokens(done: number, total: number): void {
    if (!this.#out.json) this.#write(`${count(done)} of ${count(total)} tokens`);
  }

  #write(line: string): void {
    const { terminal } = this.#out;
    if (terminal.interactive) {
      terminal.stdout(`\r\x1b[2K${line.slice(0, Math.max(0, terminal.columns() - 1))}`);
      this.#shown = true;
    } else if (this.#now() - this.#last >= PLAIN_INTERVAL_MS) {
      this.#last = this.#now();
      this.#out.note(line);
    }
  }

  /** Takes the line away. */
  end(): void {
    if (this.#shown) this.#out.terminal.stdout("\r\x1b[2K");
    this.#shown = false;
  }
}
