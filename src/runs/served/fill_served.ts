/**
 * Filling the cache of a teacher behind a server before a run that learns from it: sample by sample, in any order, as answers come. What
 * has come is kept, whatever ends the work.
 *
 * @module
 */
import { exists } from "../../formats/files.ts";
import { servedHeadPath } from "../../distill/inputs/served_teacher.ts";
import type { Recipe } from "../../distill/recipe/recipe.ts";
import { CacheFolder } from "../../distill/teacher/cache_folder.ts";
import { fetchHead } from "../../served/head.ts";
import { openServed } from "../../served/open_served.ts";
import { hostOf } from "../../served/requests.ts";
import type { ServerSettings } from "../../served/server.ts";
import { type WantedAnswers, wantedAnswers } from "../child/served_samples.ts";
import { type FilledServed, Filling, type FillServedOptions, SERVED, type WorkOptions } from "./filling.ts";

export type { FilledServed, FillServedOptions } from "./filling.ts";

/** How long to wait before looking again whether another is done, milliseconds. */
const WAIT_MS = 500;

/**
 * Asks a server for what is missing of a run's cache.
 *
 * @throws {InputError} the recipe does not do, or the server's answers are not what was asked for
 * @throws {BudgetError} the budget is used up; what came is kept
 * @throws {ServedError} the server cannot be reached, or goes on failing; what came is kept
 */
export async function fillServed(recipe: Recipe, options: FillServedOptions): Promise<FilledServed> {
  const { place, plugins, signal } = options;
  await fetchMissingHead(recipe.teacher, options);
  const wanted = await wantedAnswers({ recipe, place }, plugins, signal);
  return await fillWanted(wanted, recipe.teacher.server!, options);
}

/** Where hidden states are kept, the head that reads them is fetched first: how wide they are is the head's to say. */
async function fetchMissingHead(
  teacher: Recipe["teacher"],
  { environment, patience, signal, onStage }: WorkOptions,
): Promise<void> {
  const path = servedHeadPath(teacher);
  if (path === undefined || await exists(path)) return;
  const settings = teacher.server!;
  onStage?.(`fetching the head of ${settings.model} from ${hostOf(settings)}`);
  using served = openServed({ ...settings, budget: {} }, {
    ...{ environment, patience, signal },
    onRetry: (message) => onStage?.(message),
  });
  try {
    await fetchHead(served.requests, settings, path);
  } catch (error) {
    // Another has fetched it meanwhile.
    if (!await exists(path)) throw error;
  }
}

/** Likewise, of what is known to be wanted. @throws as {@linkcode fillServed} */
export async function fillWanted(
  wanted: WantedAnswers,
  server: ServerSettings,
  options: WorkOptions,
): Promise<FilledServed> {
  const { signal, onStage } = options;
  const folder = await CacheFolder.open(wanted.place, wanted.origin);
  const filling = new Filling(folder, wanted, server, options);
  for (let waited = false;; waited = true) {
    await folder.refresh();
    if (await filling.isComplete()) {
      onStage?.(`all that is wanted of ${hostOf(server)} is there: ${folder.path}`);
      return await filling.result(0);
    }
    const release = await folder.claim(SERVED);
    if (release) {
      try {
        return await filling.fill();
      } finally {
        await release();
      }
    }
    if (!waited) onStage?.("another process asks the server for the same: waiting for it");
    if (options.stopped?.()) return await filling.result(0);
    signal?.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
  }
}
