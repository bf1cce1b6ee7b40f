/**
 * Why a training process ended that did not say so itself.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import type { ErrorEvent } from "../../distill/run/events.ts";
import { type ChildEnd, howItEnded } from "../child/host.ts";

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
 * @param folder the run's folder
 */
export function explainDeath(end: ChildEnd, folder: string): ErrorEvent {
  const message = `the training process ${howItEnded(end)}`;
  if (end.silentSeconds !== undefined) {
    return {
      type: "error",
      code: "hung",
      message,
      hint:
        "A GPU that hangs or very slow compilation can be the cause. `limbeck resume` continues from the last checkpoint; " +
        "limits.watchdogSeconds allows more time.",
      exitCode: 4,
    };
  }
  const crashed = end.outOfMemory || (end.signal !== null && CRASH_SIGNALS.has(end.signal));
  return {
    type: "error",
    code: "died",
    message,
    hint: end.signal === "SIGKILL"
      ? "The system may have run out of memory: try fewer tokens in a micro-batch. `limbeck resume` continues from the last checkpoint."
      : `${
        join(folder, "console.log")
      } has its last words. \`limbeck resume\` continues from the last checkpoint.`,
    exitCode: crashed ? 4 : 1,
  };
}
