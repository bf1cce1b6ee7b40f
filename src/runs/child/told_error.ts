/**
 * Errors that one process tells another, so that they come out as what they were.
 *
 * @module
 */
import { RecipeError } from "../../distill/recipe/parse.ts";
import type { RecipeProblem } from "../../distill/recipe/problems.ts";
import { DeviceError, InputError, LimbeckError } from "../../base/errors.ts";
import { explainError, type Explanation } from "./error_event.ts";

/** An error in a line of JSON. */
export interface ToldError extends Explanation {
  readonly where?: string;
  readonly problems?: readonly RecipeProblem[];
}

/** Tells an error of any kind. */
export function tellError(error: unknown): ToldError {
  return {
    ...explainError(error, "This is a mistake in Limbeck or in a plugin; please report it."),
    ...(error instanceof InputError && error.where ? { where: error.where } : {}),
    ...(error instanceof RecipeError ? { problems: [...error.problems] } : {}),
  };
}

/** The error that was told. */
export function errorOf({ message, hint, where, exitCode, problems }: ToldError): LimbeckError {
  if (problems) return new RecipeError("recipe", problems);
  const options = hint === undefined ? {} : { hint };
  if (exitCode === 4) return new DeviceError(message, options);
  if (exitCode !== 3) return new LimbeckError(message, options);
  const own = where && message.startsWith(`${where}: `) ? message.slice(where.length + 2) : message;
  return new InputError(own, { ...options, ...(where === undefined ? {} : { where }) });
}
