/**
 * Where a run stands, from its files.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { join } from "@std/path";
import type { ErrorEvent, RunEvent, RunResult, RunState } from "../distill/events.ts";
import { readEvents } from "./event_log.ts";
import { isLocked, readRun } from "./run_folder.ts";

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

/**
 * Sums a run up.
 *
 * @throws {InputError} no run there, or a file of it is damaged
 */
export async function summarise(folder: string): Promise<RunSummary> {
  const { manifest, recipe } = await readRun(folder);
  const begun = await Deno.stat(join(folder, "events.jsonl")).then(() => true, () => false);
  const events: RunEvent[] = begun ? await readEvents(folder) : [];
  const told = events.findLast((event) => event.type === "state")?.state ?? "queued";
  // Whoever was to tell of the end may have been killed.
  const state = told === "running" && !await isLocked(folder) ? "interrupted" : told;
  const last = events.findLast((event) => event.type === "metrics" || event.type === "rewind");
  const result = events.findLast((event) => event.type === "result")?.result;
  const error = events.findLast((event) => event.type === "error");
  return {
    id: manifest.id,
    folder,
    createdAt: manifest.createdAt,
    state,
    step: Math.max(0, last?.step ?? 0),
    steps: recipe.train.steps,
    loss: last?.type === "metrics" ? last.loss : null,
    ...(result ? { result } : {}),
    ...(error && state === "failed" ? { error } : {}),
  };
}
