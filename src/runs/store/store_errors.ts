/**
 * What can go wrong between a run and the store that keeps it.
 *
 * @module
 */
import type { RunState } from "../../distill/run/events.ts";
import { InputError, isDiskFull, LimbeckError } from "../../base/errors.ts";

/** The store cannot take a change; what it holds stays whole. */
export class StoreError extends LimbeckError {
  override readonly code: string;

  constructor(path: string, cause: unknown) {
    const message = cause instanceof Error ? cause.message : String(cause);
    const full = isDiskFull(cause) || /disk is full|disk I\/O error/.test(message);
    super(`${path}: ${full ? "disk full" : `cannot be written: ${message}`}`, {
      hint:
        "Free space there. What it holds stays whole: `limbeck resume` continues a run from its last checkpoint.",
      cause,
    });
    this.code = full ? "disk_full" : "store";
  }
}

/** A run is not in a state in which what was asked for can be done. */
export class RunStateError extends InputError {
  override readonly code = "run_state";
  readonly state: RunState;

  constructor(id: string, state: RunState, wanted: string, hint?: string) {
    super(`run ${id} is ${state} and cannot ${wanted}`, hint === undefined ? {} : { hint });
    this.state = state;
  }
}

/** Another run has this id: of a thousand runs in one second two are likely to draw the same four characters. */
export class TakenIdError extends LimbeckError {
  override readonly code = "id_taken";

  constructor(id: string) {
    super(`there is a run "${id}" already`, { hint: "Try again: the next run gets another id." });
  }
}

/** No run has this id. */
export class UnknownRunError extends InputError {
  override readonly code = "unknown_run";

  constructor(id: string) {
    super(`there is no run "${id}"`, { hint: "`limbeck runs` lists the runs there are." });
  }
}

/** An idempotency key was used for another request before. */
export class IdempotencyError extends InputError {
  override readonly code = "idempotency_key_reused";

  constructor(key: string) {
    super(`the idempotency key "${key}" was used for another request`, {
      hint: "Use a new key for a new request, and the same key only to send the same request again.",
    });
  }
}
