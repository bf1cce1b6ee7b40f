/**
 * What was used of a server, kept in a file, so that a limit holds over restarts, kills and all who use the same file.
 *
 * Before a request is sent, what it may use at the most is written down and flushed; afterwards, what it used. Of a request whose end
 * nobody saw, all that it may have used counts.
 *
 * @module
 */
import { LimbeckError } from "../base/errors.ts";
import { LineFile } from "./line_file.ts";
import type { BudgetLimits } from "./server.ts";

/** A limit does not allow the next request. */
export class BudgetError extends LimbeckError {
  override readonly exitCode = 3;
  override readonly code = "budget";
}

/** A line of the file. */
type Entry = { readonly n: number; readonly tokens: number } | { readonly n: number; readonly used: number };

/** What is left to use. */
export class Budget {
  readonly #limits: BudgetLimits;
  readonly #file: LineFile<Entry> | undefined;
  #requests: number;
  #tokens: number;
  #last: number;

  private constructor(
    limits: BudgetLimits,
    file: LineFile<Entry> | undefined,
    used: { requests: number; tokens: number; last: number },
  ) {
    [this.#limits, this.#file] = [limits, file];
    [this.#requests, this.#tokens, this.#last] = [used.requests, used.tokens, used.last];
  }

  /**
   * Opens a file of what was used, which is made where it is not there; or, without one, counts for this process alone. Nobody else may
   * have the file open.
   */
  static open(limits: BudgetLimits, path?: string): Budget {
    if (path === undefined) return new Budget(limits, undefined, sumOf([]));
    const { file, values } = LineFile.open<Entry>(path);
    return new Budget(limits, file, sumOf(values));
  }

  /** What was used so far, by all who used the file. */
  get used(): { readonly requests: number; readonly tokens: number } {
    return { requests: this.#requests, tokens: this.#tokens };
  }

  /**
   * Takes what one request may use.
   *
   * @returns gives back what it did not use, once it is known
   * @throws {BudgetError} more than is left
   */
  spend(tokens: number): (used: number) => void {
    const { requests = Infinity, tokens: most = Infinity } = this.#limits;
    if (this.#requests + 1 > requests) {
      throw new BudgetError(`all ${requests} requests that the budget allows have been made`, {
        hint: "What came of them is kept. Raise teacher.server.budget.requests to go on.",
      });
    }
    if (this.#tokens + tokens > most) {
      throw new BudgetError(
        `the budget allows ${most} tokens; ${this.#tokens} are used, and the next request may use ${tokens}`,
        { hint: "What came of them is kept. Raise teacher.server.budget.tokens to go on." },
      );
    }
    const n = ++this.#last;
    this.#file?.append({ n, tokens });
    this.#requests++;
    this.#tokens += tokens;
    return (used) => {
      this.#file?.append({ n, used });
      this.#tokens += used - tokens;
    };
  }

  close(): void {
    this.#file?.close();
  }
}

function sumOf(entries: readonly Entry[]): { requests: number; tokens: number; last: number } {
  const [sum, taken] = [{ requests: 0, tokens: 0, last: 0 }, new Map<number, number>()];
  for (const entry of entries) {
    if ("used" in entry) sum.tokens += entry.used - (taken.get(entry.n) ?? 0);
    else {
      taken.set(entry.n, entry.tokens);
      sum.requests++;
      sum.tokens += entry.tokens;
    }
    sum.last = Math.max(sum.last, entry.n);
  }
  return sum;
}
