/**
 * Why a training process ended that did not say so itself.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import type { ErrorEvent } from "../../distill/run/events.ts";

/** Signals by which drivers, the system and the out-of-memory killer end a process. */
const CRASH_SIGNALS: ReadonlySet<string> = new Set([
  "SIGKILL",
  "SIGSEGV",
  "SIGBUS",
  "SIGABRT",
  "SIGILL",
  "SIGFPE",
]);

/**
 * What to tell of a process that ended without a last word.
 *
 * @param silent seconds of silence after which it was ended; undefined where it ended by itself
 * @param folder the run's folder
 */
export function explainDeath(
  status: Deno.CommandStatus,
  silent: number | undefined,
  folder: string,
): ErrorEvent {
  if (silent !== undefined) {
    return {
      type: "error",
      code: "hung",
      message: `the training process gave no sign of life for ${silent} s and was ended`,
      hint:
        "A GPU that hangs or very slow compilation can be the cause. `limbeck resume` continues from the last checkpoint; " +
        "limits.watchdogSeconds allows more time.",
      exitCode: 4,
    };
  }
  const crashed = status.signal !== null && CRASH_SIGNALS.has(status.signal);
  const how = status.signal ? `by ${status.signal}` : `with exit code ${status.code}`;
  return {
    type: "error",
    code: "died",
    message: `the training process ended ${how} without saying why`,
    hint: status.signal === "SIGKILL"
      ? "The system may have run out of memory: try fewer tokens in a micro-batch. `limbeck resume` continues from the last checkpoint."
      : `${
        join(folder, "console.log")
      } has its last words. \`limbeck resume\` continues from the last checkpoint.`,
    exitCode: crashed ? 4 : 1,
  };
}
