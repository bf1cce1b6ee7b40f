/**
 * A run's failure, told like any other error.
 *
 * @module
 */
import type { ErrorEvent } from "../../distill/run/events.ts";
import { type ExitCode, LimbeckError } from "../../base/errors.ts";

/** A run that failed: the error that its training process reported, with its exit code. */
export class RunError extends LimbeckError {
  override readonly exitCode: ExitCode;
  override readonly code: string;

  constructor(error: ErrorEvent, folder: string) {
    // Bad input explains itself; only what nobody expected may have left more on the console.
    super(error.message, {
      hint: error.hint ?? (error.exitCode === 1 ? `${folder}/console.log may tell more.` : undefined),
    });
    this.exitCode = error.exitCode as ExitCode;
    this.code = error.code;
    if (error.stack) this.stack = error.stack;
  }
}
