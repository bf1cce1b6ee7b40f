/**
 * Work of some minutes that the user may stop.
 *
 * @module
 */
import { type ExitCode, LimbeckError } from "../../base/errors.ts";
import type { Output } from "./output.ts";
import { handleSignals } from "./watch_run.ts";
import { WorkProgress } from "./work_progress.ts";

/** Work that the user stopped. */
export class StoppedError extends LimbeckError {
  override readonly exitCode: ExitCode = 130;
  override readonly code = "stopped";
}

/** What work is given. */
export interface StoppableWork {
  /** Aborted by the first Ctrl-C; the second ends the process. */
  readonly signal: AbortSignal;
  /** Shows how far it is. */
  readonly onProgress: (done: number, total: number, text: string) => void;
}

/** Does work under a progress bar. @param left What is said when it is stopped */
export async function stoppable<T>(
  out: Output,
  label: string,
  work: (given: StoppableWork) => Promise<T>,
  left = "stopped; nothing was left behind",
): Promise<T> {
  const stop = new AbortController();
  const progress = new WorkProgress(out, label);
  using _signals = handleSignals({
    first: () => stop.abort(new StoppedError(left)),
    second: () => Deno.exit(130),
  });
  try {
    return await work({
      signal: stop.signal,
      onProgress: (done, total, text) => progress.update(done, total, text),
    });
  } finally {
    progress.end();
  }
}
