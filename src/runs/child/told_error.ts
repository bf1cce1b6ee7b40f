/**
 * Errors as users are told of them, and as one process tells them to another.
 *
 * @module
 */
import type { RecipeError } from "../../distill/recipe/parse.ts";
import type { ErrorEvent } from "../../distill/run/events.ts";
import { type ExitCode, InputError, isDiskFull, LimbeckError } from "../../base/errors.ts";

/** What an error tells the user, and the exit code of a command that it ends. */
export interface Explanation {
  readonly code: string;
  readonly message: string;
  readonly hint?: string;
  readonly exitCode: ExitCode;
}

/** What the system refuses because of a path that the user named, by the codes of its errors. */
const REFUSALS = ["EACCES", "EPERM", "EROFS", "ENOENT", "ENOTDIR", "EISDIR", "ENAMETOOLONG", "ELOOP"];

/**
 * Explains an error of any kind.
 *
 * @param ofMistakes the hint for an error that nobody raised on purpose
 */
export function explainError(error: unknown, ofMistakes: string): Explanation {
  const denied = deniedBy(error);
  if (denied) {
    const message = (error as Error).message.replace(/, run again with the --allow-\w+ flag/, "");
    return {
      code: "not_permitted",
      message: error === denied ? `something in the run tried what it may not: ${message}` : message,
      hint:
        "A run reads the models and data of its recipe and writes its own folder; it has no network, no environment and no other " +
        "processes. If it is a plugin of yours, give it what it needs as an option.",
      exitCode: 1,
    };
  }
  if (error instanceof LimbeckError) {
    const { code, message, hint, exitCode } = error;
    return { code, message, ...(hint === undefined ? {} : { hint }), exitCode };
  }
  if (!(error instanceof Error)) {
    return { code: "internal", message: String(error), hint: ofMistakes, exitCode: 1 };
  }
  if (isDiskFull(error)) {
    const message = `the disk is full: ${error.message}`;
    return { code: "disk_full", message, hint: "Free space there, then try again.", exitCode: 1 };
  }
  if ("code" in error && REFUSALS.includes(String(error.code))) {
    const hint = "Check the path and its permissions; LIMBECK_DEBUG=1 shows what it was wanted for.";
    return { code: "refused", message: error.message, hint, exitCode: 3 };
  }
  return { code: "internal", message: `${error.name}: ${error.message}`, hint: ofMistakes, exitCode: 1 };
}

/** The refusal of a permission behind an error, if that is what it comes from. */
function deniedBy(error: unknown): Error | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof Deno.errors.NotCapable) return cause;
  }
  return undefined;
}

/** An error in a message. */
export interface ToldError extends Explanation {
  readonly where?: string;
  readonly problems?: RecipeError["problems"];
}

/** Tells an error of any kind to another process. */
export function tellError(error: unknown): ToldError {
  const input = error instanceof InputError ? error : undefined;
  return {
    ...explainError(error, "This is a mistake in Limbeck or in a plugin; please report it."),
    ...(input?.where ? { where: input.where } : {}),
    // By its code: its class comes with packages that not every child has.
    ...(input?.code === "bad_recipe" ? { problems: [...(input as RecipeError).problems] } : {}),
  };
}

/** An error as the last event of a run. `debug` adds its stack. */
export function errorEvent(error: unknown, debug: boolean): ErrorEvent {
  const explained = explainError(
    error,
    "This is a mistake in Limbeck or in a plugin. console.log in the run's folder has the details; please report it.",
  );
  const stack = debug && error instanceof Error ? { stack: error.stack } : {};
  const hint = explained.code === "disk_full"
    ? { hint: "Free space there, then `limbeck resume` the run: what it has saved is whole." }
    : {};
  return { type: "error", ...explained, ...hint, ...stack };
}
