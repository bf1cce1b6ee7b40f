/**
 * What a client is told when something is wrong: always `{error: {message, type, param, code}}`, as the OpenAI API has it. `param` is the
 * path in what was sent, such as `train.steps`.
 *
 * @module
 */
import { HTTPException } from "hono/http-exception";
import { RecipeError } from "../../distill/recipe/parse.ts";
import type { RecipeProblem } from "../../distill/recipe/problems.ts";
import { InputError, LimbeckError } from "../../base/errors.ts";
import { InspectionMemoryError, InspectionTimeoutError } from "../../runs/child/inspection.ts";
import { LockedError } from "../../runs/store/run_lock.ts";
import { IdempotencyError, RunStateError, UnknownRunError } from "../../runs/store/store_errors.ts";

/** Statuses that an error can have. */
export type ErrorStatus =
  | (400 | 401 | 403 | 404 | 405 | 406 | 408 | 409 | 412 | 413 | 415 | 416 | 421 | 422 | 429)
  | (500 | 503 | 507);

/** The body of every answer that is not a success. */
export interface ErrorBody {
  error: {
    message: string;
    /** What kind of mistake: the client's, a missing right, too much at once, or ours. */
    type:
      | "invalid_request_error"
      | "authentication_error"
      | "permission_error"
      | "rate_limit_error"
      | "server_error";
    /** Path in the request, or null. */
    param: string | null;
    code: string | null;
    /** All that is wrong, each with its path; absent where no field is to blame. */
    problems?: { param: string; message: string }[];
  };
}

/** What an {@linkcode HttpError} says beside its message. */
export interface HttpErrorOptions {
  code?: string;
  param?: string;
  problems?: readonly RecipeProblem[];
  headers?: Readonly<Record<string, string>>;
  cause?: unknown;
}

/** An error with a status. Its message is for the client. */
export class HttpError extends Error {
  readonly status: ErrorStatus;
  readonly code: string | undefined;
  readonly param: string | undefined;
  readonly problems: readonly RecipeProblem[];
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: ErrorStatus, message: string, options: HttpErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "HttpError";
    this.status = status;
    this.code = options.code;
    this.param = options.param;
    this.problems = options.problems ?? [];
    this.headers = options.headers ?? {};
  }
}

/** All that a client is told of a failure of the service: messages of those name files, processes and what they said. */
const INTERNAL = "something is wrong in the service; its log says what";

/**
 * The same error with a status. What the client did wrong keeps its message; what went wrong in the service has none.
 *
 * @param hide takes what a client must not see, such as paths of this machine, out of a message
 *
 * @example
 * ```ts ignore
 * app.onError((error) => errorResponse(toHttpError(error, hidePaths)));
 * ```
 */
export function toHttpError(error: unknown, hide: (text: string) => string = (text) => text): HttpError {
  if (error instanceof HttpError) return error;
  if (error instanceof RecipeError) {
    const problems = error.problems.map(({ path, message }) => ({ path, message: hide(message) }));
    return new HttpError(
      400,
      problems.map(({ path, message }) => path ? `${path}: ${message}` : message).join("\n"),
      {
        code: error.code,
        param: problems[0]?.path,
        problems,
        cause: error,
      },
    );
  }
  if (error instanceof LimbeckError) {
    const status = statusOf(error);
    const text = status === 500 ? INTERNAL : hide(ownWords(error));
    const later = LATER[error.code];
    return new HttpError(status, text, {
      code: error.code,
      cause: error,
      ...(later === undefined ? {} : { headers: { "Retry-After": String(later) } }),
    });
  }
  // Hono's own, such as of a body that is no JSON.
  if (error instanceof HTTPException && error.status < 500) {
    if (error.status === 415) return wrongContentType(error);
    if (error.status === 413) return tooLarge(error);
    return new HttpError(error.status as ErrorStatus, error.message || "the request cannot be read", {
      code: "bad_request",
      cause: error,
    });
  }
  return new HttpError(500, INTERNAL, { code: "internal", cause: error });
}

function wrongContentType(cause: unknown): HttpError {
  return new HttpError(415, "the body's Content-Type is missing or is not one that is taken here", {
    code: "content_type",
    cause,
  });
}

function tooLarge(cause: unknown): HttpError {
  return new HttpError(413, "the body is too large", { code: "too_large", cause });
}

/** What passes by itself, and seconds after which to try again. */
const LATER: Readonly<Record<string, number>> = { busy: 5, gpu_busy: 30, inference_ended: 1 };

function statusOf(error: LimbeckError): ErrorStatus {
  if (error instanceof UnknownRunError) return 404;
  if (error instanceof IdempotencyError) return 422;
  if (error instanceof RunStateError || error instanceof LockedError) return 409;
  if (error instanceof InputError || error.exitCode === 3) return 400;
  if (error.code === "disk_full") return 507;
  if (LATER[error.code] !== undefined) return 503;
  if (error instanceof InspectionTimeoutError || error instanceof InspectionMemoryError) return 422;
  if (error.exitCode === 4) return 422;
  return 500;
}

/** An error's message without the file that it names, and what to do. */
function ownWords(error: LimbeckError): string {
  const { message, hint } = error;
  const where = error instanceof InputError && error.where ? `${error.where}: ` : "";
  const own = where && message.startsWith(where) ? message.slice(where.length) : message;
  // What to do at a terminal helps nobody here.
  return hint && !hint.includes("`limbeck ") ? `${own}. ${hint}` : own;
}

/** The body that tells of an error. */
export function errorBody({ status, message, code, param, problems }: HttpError): ErrorBody {
  return {
    error: {
      message,
      type: typeOf(status),
      param: param ?? null,
      code: code ?? null,
      ...(problems.length > 0
        ? { problems: problems.map((p) => ({ param: p.path, message: p.message })) }
        : {}),
    },
  };
}

/** The answer that tells of an error. */
export function errorResponse(error: HttpError): Response {
  return Response.json(errorBody(error), { status: error.status, headers: error.headers });
}

function typeOf(status: ErrorStatus): ErrorBody["error"]["type"] {
  if (status === 401) return "authentication_error";
  if (status === 403 || status === 421) return "permission_error";
  if (status === 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}
