/**
 * Errors as the page tells them.
 *
 * @module
 */
import { isDiskFull, LimbeckError } from "../base/errors.ts";
import type { Failure } from "./messages.ts";

/** An error of any kind in words. Hints that name commands are for terminals. */
export function failureOf(error: unknown): Failure {
  if (isDiskFull(error)) {
    return {
      code: "disk_full",
      message: `the browser keeps no more for this page: ${(error as Error).message}`,
      hint: "Remove runs that are listed here, or free space on the disk. What was saved before is whole.",
    };
  }
  if (!(error instanceof LimbeckError)) {
    const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    return { code: "internal", message, hint: "This is a mistake in Limbeck; please report it." };
  }
  const { code, message, hint } = error;
  if (code === "device") {
    return {
      ...{ code, message },
      hint: hint !== undefined && !hint.includes("limbeck")
        ? hint
        : "Reload the page and resume the run: it goes on from its last checkpoint. If it happens again, lower the tokens of a micro-batch.",
    };
  }
  return { code, message, ...(hint === undefined || /`limbeck|--\w/.test(hint) ? {} : { hint }) };
}
