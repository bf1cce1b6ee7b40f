/**
 * The list of checks a plugin goes through: each is announced before it begins, so that one that never ends can be named.
 *
 * @module
 */
import { LimbeckError } from "../../base/errors.ts";
import type { KernelText } from "../../gpu/description.ts";

/** What came of a check. `skip` says why it was not done. */
export type Outcome = "pass" | "fail" | "skip";

/** One row of the table. */
export interface CheckResult {
  readonly check: string;
  readonly outcome: Outcome;
  /** What was found. */
  readonly detail: string;
  /** What to do about it. */
  readonly hint?: string;
}

/** A plugin does not do what it must. `hint` says what to do. */
export class CheckFailure extends LimbeckError {
  override readonly code = "plugin_check";
}

/** A check cannot or need not be done. */
export class CheckSkipped extends Error {}

/** Who is told what happens. */
export interface CheckListener {
  begin(check: string): void;
  result(result: CheckResult): void;
  /** Told of kernels that compile here, to be compiled elsewhere as well. */
  kernels?(kernels: readonly KernelText[]): void;
}

/** Runs checks one after another. */
export class Checklist {
  readonly #listener: CheckListener;

  constructor(listener: CheckListener) {
    this.#listener = listener;
  }

  /** Offers kernels that compile here to other compilers. */
  offer(kernels: readonly KernelText[]): void {
    this.#listener.kernels?.(kernels);
  }

  /**
   * Runs a check.
   *
   * @param run returns what was found; whatever it throws is the check's failure
   * @param hint what to do when something unforeseen is thrown
   * @returns whether the plugin passed
   */
  async step(check: string, run: () => string | Promise<string>, hint?: string): Promise<boolean> {
    this.#listener.begin(check);
    try {
      this.#listener.result({ check, outcome: "pass", detail: await run() });
      return true;
    } catch (error) {
      if (error instanceof CheckSkipped) {
        this.#listener.result({ check, outcome: "skip", detail: error.message });
        return true;
      }
      const known = error instanceof LimbeckError;
      const advice = (known ? error.hint : undefined) ?? hint;
      this.#listener.result({
        check,
        outcome: "fail",
        detail: known
          ? error.message
          : `it throws ${error instanceof Error ? `${error.name}: ${error.message}` : error}`,
        ...(advice === undefined ? {} : { hint: advice }),
      });
      return false;
    }
  }
}
