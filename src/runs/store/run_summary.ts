/**
 * Where a run stands, for people.
 *
 * @module
 */
import type { ErrorEvent, RunState } from "../../distill/run/events.ts";
import type { RunResult } from "../../distill/export/exports.ts";
import { stepsOf } from "../task/run_recipe.ts";
import { isLocked } from "./run_lock.ts";
import type { StoredRun } from "./store.ts";

/** A run in a list. */
export interface RunSummary {
  id: string;
  folder: string;
  createdAt: string;
  state: RunState;
  /** Steps done. */
  step: number;
  steps: number;
  /** Training loss of the last step. */
  loss: number | null;
  result?: RunResult;
  error?: ErrorEvent;
}

/** Sums a run up. */
export function summarise(run: StoredRun): RunSummary {
  const { id, folder, manifest, recipe, step, loss, result, error } = run;
  const state = stateNow(run);
  return {
    id,
    folder,
    createdAt: manifest.createdAt,
    state,
    step,
    steps: stepsOf(recipe),
    loss,
    ...(result ? { result } : {}),
    ...(error && state === "failed" ? { error } : {}),
  };
}

/** The state of a run. Whoever was to tell of its end may have been killed: then it is interrupted. */
export function stateNow({ state, folder }: StoredRun): RunState {
  return state === "running" && !isLocked(folder) ? "interrupted" : state;
}
