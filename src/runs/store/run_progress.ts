/**
 * How a run comes from where it stands to where it stands next: a pure function of what happens to it. A store keeps what comes out and
 * decides nothing itself.
 *
 * @module
 */
import type { RunEvent, RunState, StateEvent } from "../../distill/run/events.ts";
import { isAtRest, isEnd, mayBecome } from "./run_states.ts";
import type { RunProgress, RunRequest } from "./store.ts";
import { RunStateError } from "./store_errors.ts";

/** Any part of a run that says which it is and where it stands. */
type Run = RunProgress & { readonly id: string };

/** Where a run stands before its first event, which says that it is queued. */
export const NO_PROGRESS: RunProgress = {
  ...{ state: "queued", asked: null, restarts: 0, seq: 0, attempt: 0, step: 0, loss: null },
  ...{ startedAt: null, finishedAt: null, result: null, error: null },
};

/** What cannot be done with a run in the wrong state, in an error. */
const REQUESTS: Readonly<Record<RunRequest, string>> = {
  ...{ checkpoint: "save a checkpoint", pause: "be paused", cancel: "be cancelled" },
};
const WAYS_TO: Partial<Record<RunState, string>> = { queued: "be resumed", cancelled: "be cancelled" };

/**
 * A run after its next event.
 *
 * @throws {RunStateError} a state that it cannot come to from where it is
 */
export function afterEvent<R extends Run>(run: R, event: RunEvent): R {
  const isFirst = run.seq === 0 && event.type === "state" && event.state === "queued";
  if (event.type === "state" && !isFirst && !mayBecome(run.state, event.state)) {
    throw new RunStateError(run.id, run.state, WAYS_TO[event.state] ?? `become ${event.state}`);
  }
  return told(run, event);
}

/** A run after events of a log that was written elsewhere: they are believed. */
export function afterLog<R extends Run>(run: R, events: readonly RunEvent[]): R {
  return events.reduce((run, event) => told(run, event), run);
}

/**
 * A run of which something is asked, or of which it is taken back (null). Cancelling is for good.
 *
 * @throws {RunStateError} nobody works on it
 */
export function afterAsking<R extends Run>(run: R, request: RunRequest | null): R {
  if (request !== null && run.state !== "running") {
    throw new RunStateError(run.id, run.state, REQUESTS[request]);
  }
  return run.asked === "cancel" ? run : { ...run, asked: request };
}

/**
 * Seconds that a run has been worked on since someone asked for it. An attempt that was cut off counts up to its last word: nobody knows
 * how much longer it lived.
 */
export function secondsWorked(events: readonly RunEvent[]): number {
  let [milliseconds, from, heard] = [0, NaN, NaN];
  let state: RunState = "queued";
  for (const event of events) {
    const time = Date.parse(event.time);
    if (event.type === "state") {
      const until = event.state === "interrupted" ? heard : time;
      if (state === "running") milliseconds += until - from;
      if (event.state === "running") from = time;
      if (isRequest(state, event)) milliseconds = 0;
      state = event.state;
    }
    heard = time;
  }
  return milliseconds / 1000;
}

/** Whether someone asked for it. Only a run that was interrupted is queued without that. */
function isRequest(from: RunState, { state, by }: StateEvent): boolean {
  return state === "queued" && (by === "request" || from !== "interrupted");
}

function told<R extends Run>(run: R, event: RunEvent): R {
  return {
    ...run,
    ...changes(run, event),
    seq: event.seq,
    attempt: Math.max(run.attempt, event.attempt),
  };
}

function changes(run: Run, event: RunEvent): Partial<RunProgress> {
  switch (event.type) {
    case "state":
      return stateChanges(run, event);
    case "metrics":
      return { step: event.step, loss: finite(event.loss) };
    case "progress":
      return { step: event.step };
    case "rewind":
      return { step: Math.max(0, event.step), loss: null };
    case "result":
      return { result: event.result };
    case "error": {
      const { seq: _seq, time: _time, attempt: _attempt, ...error } = event;
      return { error };
    }
    default:
      return {};
  }
}

function stateChanges(run: Run, event: StateEvent & { readonly time: string }): Partial<RunProgress> {
  const { state, by, time } = event;
  if (state === "running") {
    return { state, startedAt: run.startedAt ?? time, finishedAt: null, error: null };
  }
  if (state === "queued") {
    if (isRequest(run.state, event)) return { state, finishedAt: null, asked: null, restarts: 0 };
    return { state, finishedAt: null, restarts: run.restarts + (by === "service-end" ? 0 : 1) };
  }
  if (!isAtRest(state)) return { state };
  const ended = isEnd(state) && state !== "failed";
  return { state, finishedAt: time, asked: null, ...(ended ? { error: null } : {}) };
}

/** JSON has no other numbers. */
function finite(value: number | null): number | null {
  return Number.isFinite(value) ? value : null;
}
