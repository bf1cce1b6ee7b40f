/**
 * The errors Limbeck raises. Each says what was wrong, where, what would be right and what to do, and carries the exit code
 * that the command line ends with.
 *
 * @module
 */

/** What kind of failure this is: 1 failed, 2 usage, 3 bad input, 4 device or memory, 5 diverged, 130 interrupted. */
export type ExitCode = 1 | 2 | 3 | 4 | 5 | 130;

/** Base of all errors that Limbeck raises on purpose. `hint` tells the reader what to do next. */
export class LimbeckError extends Error {
  /** Exit code of the command line when this error ends it. */
  readonly exitCode: ExitCode = 1;
  /** Stable machine-readable name of the error, for `--json` and HTTP. */
  readonly code: string = "failed";
  /** What to do about it, one or two sentences, if there is something to do. */
  readonly hint: string | undefined;

  constructor(message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.hint = options.hint;
  }
}

/** The command line was used wrongly: unknown verb or flag, missing argument. */
export class UsageError extends LimbeckError {
  override readonly exitCode = 2;
  override readonly code = "usage";
}

/** A file, dataset, model or recipe is not what it must be. `where` is the file, tensor, line or recipe path. */
export class InputError extends LimbeckError {
  override readonly exitCode = 3;
  override readonly code: string = "bad_input";
  readonly where: string | undefined;

  constructor(message: string, options: { where?: string; hint?: string; cause?: unknown } = {}) {
    super(options.where ? `${options.where}: ${message}` : message, options);
    this.where = options.where;
  }
}

/** No adapter, a lost device, a kernel that does not compile, or memory that does not suffice. */
export class DeviceError extends LimbeckError {
  override readonly exitCode = 4;
  override readonly code: string = "device";
}

/** The loss or a gradient became NaN or infinite, or the loss ran away. */
export class DivergedError extends LimbeckError {
  override readonly exitCode = 5;
  override readonly code = "diverged";
}

/** A tensor program is wrong: shapes or dtypes that do not fit an op, named with the op and every shape. */
export class ShapeError extends LimbeckError {
  override readonly code = "shape";
}

/** Whether an error of the system says that a disk or a quota is full. */
export function isDiskFull(error: unknown): boolean {
  return error instanceof Error && "code" in error && (error.code === "ENOSPC" || error.code === "EDQUOT");
}
