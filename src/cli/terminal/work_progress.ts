/**
 * How far a piece of work is whose size is known: a bar that is redrawn on a terminal, a line now and then elsewhere.
 *
 * @module
 */
// @ts-types="../../../types/std_colors.d.ts"
import { cyan, dim } from "@std/fmt/colors";
import { duration } from "../../base/units.ts";
import type { Output } from "./output.ts";

/** Milliseconds between two looks of the bar, and between two lines where none can be redrawn. */
const BAR_INTERVAL_MS = 100;
const PLAIN_INTERVAL_MS = 5000;
const BAR_WIDTH = 20;

/** Shows work of a known size. Nothing is shown with `--json`. */
export class WorkProgress {
  readonly #out: Output;
  readonly #label: string;
  readonly #now: () => number;
  readonly #begun: number;
  #last: number;
  #shown = false;

  /** @param now clock in milliseconds */
  constructor(out: Output, label: string, now: () => number = () => performance.now()) {
    this.#out = out;
    this.#label = label;
    this.#now = now;
    this.#begun = now();
    this.#last = -Infinity;
  }

  /**
   * Shows how far it is.
   *
   * @param done Part of `total`, in any unit that takes about the same time each
   * @param text What is done, in words
   */
  update(done: number, total: number, text: string): void {
    if (this.#out.json) return;
    const now = this.#now();
    const { interactive } = this.#out.terminal;
    if (!interactive && this.#last === -Infinity) this.#last = this.#begun;
    if (now - this.#last < (interactive ? BAR_INTERVAL_MS : PLAIN_INTERVAL_MS)) return;
    this.#last = now;
    const share = total > 0 ? Math.min(1, done / total) : 1;
    const seconds = (now - this.#begun) / 1000;
    const left = share > 0 ? `  ${duration(seconds * (1 - share) / share)} left` : "";
    if (!interactive) return this.#out.line(`${this.#label} ${Math.round(100 * share)} %  ${text}${left}`);
    const full = Math.round(BAR_WIDTH * share);
    const room = this.#out.terminal.columns() - 1 - this.#label.length - BAR_WIDTH - 9;
    const words = `${text}${left}`.slice(0, Math.max(0, room));
    const percent = `${Math.round(100 * share)} %`.padStart(5);
    this.#erase();
    this.#shown = true;
    this.#out.terminal.stdout(
      `${this.#label} ${cyan("━".repeat(full))}${dim("━".repeat(BAR_WIDTH - full))} ${percent}  ${words}`,
    );
  }

  /** Takes the bar away. */
  end(): void {
    this.#erase();
  }

  #erase(): void {
    if (this.#shown) this.#out.terminal.stdout("\r\x1b[2K");
    this.#shown = false;
  }
}
