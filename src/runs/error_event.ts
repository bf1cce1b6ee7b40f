/**
 * Errors as events.
 *
 * @module
 */
import type { ErrorEvent } from "../distill/events.ts";
import { LimbeckError } from "../errors.ts";

/** What an error tells the user. `debug` adds its stack. */
export function errorEvent(error: unknown, debug: boolean): ErrorEvent {
  const stack = debug && error instanceof Error ? { stack: error.stack } : {};
  if (error instanceof LimbeckError) {
    const { code, message, hint, exitCode } = error;
    return { type: "error", code, message, ...(hint === undefined ? {} : { hint }), exitCode, ...stack };
  }
  const full = error instanceof Error && "code" in error &&
    (error.code === "ENOSPC" || error.code === "EDQUOT");
  if (full) {
    return {
      type: "error",
      code: "disk_full",
      message: `the disk is full: ${error.message}`,
      hint: "Free space there, then `limbeck resume` the run: its last checkpoint is whole.",
      exitCode: 1,
      ...stack,
    };
  }
  return {
    type: "error",
    code: "internal",
    message: error instanceof Error ? `${error.name}: ${error.message}` : String(error),
    hint:
      "This is a mistake in Limbeck or in a plugin. console.log in the run's folder has the details; please report it.",
    exitCode: 1,
    ...stack,
  };
}
