/**
 * Runs and events as clients see them: without paths of this machine.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { basename } from "@std/path";
import type { RunEvent } from "../distill/run/events.ts";
import { stateNow } from "../runs/store/run_summary.ts";
import type { StoredRun } from "../runs/store/store.ts";
import { mapRunRecipePaths, type RunRecipe, stepsOf, taskOf } from "../runs/task/run_recipe.ts";
import type { z } from "@hono/zod-openapi";
import { type eventSchema, namedRecipe, type runSchema } from "./schemas.ts";

/** Takes paths of this machine out of a text. */
export type Hide = (text: string) => string;

/** A run for a client. */
export function runView(run: StoredRun, hide: Hide): z.output<typeof runSchema> {
  const { error, result } = run;
  return {
    id: run.id,
    object: "run",
    task: taskOf(run.recipe),
    state: stateNow(run),
    asked: run.asked,
    createdAt: run.manifest.createdAt,
    startedAt: run.startedAt,
    finishedAt: run.finishedAt,
    step: run.step,
    steps: stepsOf(run.recipe),
    loss: run.loss,
    attempt: run.attempt,
    restarts: run.restarts,
    lastEvent: run.seq,
    worker: run.worker,
    owner: run.owner,
    metadata: { ...run.metadata },
    recipe: shownRecipe(run, hide),
    result: result && { ...result },
    error: error && run.state === "failed"
      ? {
        code: error.code,
        message: hide(error.message),
        exitCode: error.exitCode,
        ...(error.hint ? { hint: hide(error.hint) } : {}),
      }
      : null,
  };
}

/** A run's recipe with names where the resolved one has paths: as it was sent, or with the last parts of a terminal's paths. */
export function shownRecipe({ named, recipe }: StoredRun, hide: Hide): z.output<typeof namedRecipe> {
  return namedRecipe.parse(named ?? withoutPaths(recipe, hide));
}

/** An event for a client. */
export function eventView(event: RunEvent, hide: Hide): z.output<typeof eventSchema> {
  return { ...hideIn(event, hide) };
}

/** An event without paths of this machine. */
export function hideIn(event: RunEvent, hide: Hide): RunEvent {
  if (!("message" in event) || event.message === undefined) return event;
  const shown = { ...event, message: hide(event.message) };
  if ("hint" in shown && shown.hint) shown.hint = hide(shown.hint);
  if ("stack" in shown) delete shown.stack;
  return shown;
}

/** A recipe of the command line, with the last parts of its paths. */
function withoutPaths(recipe: RunRecipe, hide: Hide): RunRecipe {
  return mapRunRecipePaths(recipe, ({ of, path }) => of === "folder" ? undefined : basename(hide(path)));
}
