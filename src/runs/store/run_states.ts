/**
 * The states of a run and the ways between them.
 *
 * ```
 * queued -> running -> succeeded | failed | cancelled | paused
 * running -> interrupted -> queued        its process died, or whoever watched over it
 * paused | failed | interrupted -> queued by request
 * queued | paused | interrupted -> cancelled
 * ```
 *
 * @module
 */
import type { RunState } from "../../distill/run/events.ts";

const NEXT: Readonly<Record<RunState, readonly RunState[]>> = {
  queued: ["running", "cancelled", "failed"],
  running: ["succeeded", "failed", "cancelled", "paused", "interrupted"],
  paused: ["queued", "cancelled"],
  interrupted: ["queued", "cancelled", "failed"],
  failed: ["queued"],
  succeeded: [],
  cancelled: [],
};

/** All states, in the order in which a run can come to them. */
export const RUN_STATES = Object.keys(NEXT) as readonly RunState[];

/** Whether a run may go from one state to another. */
export function mayBecome(from: RunState, to: RunState): boolean {
  return NEXT[from].includes(to);
}

/** Whether a run has come to its end: nothing happens any more unless someone asks for it. */
export function isEnd(state: RunState): boolean {
  return state === "succeeded" || state === "failed" || state === "cancelled";
}

/** Whether nobody works on a run or is about to: readers that wait for more may stop. */
export function isAtRest(state: RunState): boolean {
  return isEnd(state) || state === "paused";
}
