/** Whole runs of a tiny model: in this process, or under supervision as users have them. */
import { distillRun } from "../../src/distill/run/distill.ts";
import type { RunControl, RunEvent, RunEventBody, RunTuning } from "../../src/distill/run/events.ts";
import type { RunResult } from "../../src/distill/export/exports.ts";
import type { Recipe } from "../../src/distill/recipe/recipe.ts";
import type { Plugin } from "../../src/registry/contract.ts";
import { Registry } from "../../src/registry/registry.ts";
import { metricsRows } from "../../src/runs/store/event_log.ts";
import type { LockedRun } from "../../src/runs/store/run_folder.ts";
import { type RunOutcome, type SupervisedRun, superviseRun } from "../../src/runs/supervise/supervisor.ts";
import { builtins } from "../../plugins/mod.ts";
import { testGpu } from "../tensor/harness.ts";

/** Options of {@linkcode runHere}. */
export interface RunHereOptions {
  readonly resume?: boolean;
  /** What is asked of the trainer after each step of this attempt, counted from 1. */
  readonly control?: (step: number) => RunControl;
  /** Losses beside the built-in ones. */
  readonly plugins?: readonly Plugin[];
  /** What it knows of its device's kernels. */
  readonly tuning?: RunTuning;
}

/** Runs a recipe in this process, on the device that the tests of a file share; `events` collects what it says. */
export async function runHere(
  recipe: Recipe,
  folder: string,
  options: RunHereOptions = {},
  events: RunEventBody[] = [],
): Promise<RunResult> {
  await Deno.mkdir(folder, { recursive: true });
  let asked: number | undefined;
  return await distillRun(recipe, {
    folder,
    resume: options.resume ?? false,
    resumeLimit: Infinity,
    gpu: await testGpu(),
    registry: new Registry().addAll(builtins).addAll(options.plugins ?? []),
    ...(options.tuning ? { tuning: options.tuning } : {}),
    emit(event) {
      if (event.type !== "heartbeat") events.push(event);
      // Before it, nobody asks for anything.
      if (event.type === "stage" && event.stage === "train") asked = 0;
    },
    control: () => asked === undefined ? "run" : options.control?.(++asked) ?? "run",
  });
}

/** A run in a process of its own. */
export interface WatchedRun {
  readonly events: RunEvent[];
  readonly supervised: SupervisedRun;
  readonly outcome: Promise<RunOutcome>;
}

/** Starts a run, or continues it; `onEvent` sees each event. The lock is released at its end. */
export function watchRun(
  run: LockedRun,
  options: { resume?: boolean; onEvent?: (event: RunEvent, supervised: SupervisedRun) => void } = {},
): WatchedRun {
  const events: RunEvent[] = [];
  const supervised: SupervisedRun = superviseRun({
    run,
    resume: options.resume ?? false,
    onEvent(event) {
      events.push(event);
      options.onEvent?.(event, supervised);
    },
  });
  return { events, supervised, outcome: supervised.outcome.finally(() => run.release()) };
}

/** Rows of `metrics.jsonl` without clock times and rates. */
export async function storedMetrics(folder: string): Promise<Record<string, unknown>[]> {
  const text = await Deno.readTextFile(`${folder}/metrics.jsonl`);
  return text.trim().split("\n").map((line) => timeless(JSON.parse(line)));
}

/** The rows that `metrics.jsonl` would have of these events, without clock times and rates. */
export function heldMetrics(events: readonly RunEventBody[]): Record<string, unknown>[] {
  const stamped = events.map((event, i) => ({ ...event, seq: i + 1, attempt: 1, time: "" }));
  return metricsRows(stamped).map((row) => timeless({ ...row }));
}

function timeless(row: Record<string, unknown>): Record<string, unknown> {
  const { time: _time, secondsPerStep: _seconds, tokensPerSecond: _rate, ...rest } = row;
  return rest;
}
