/**
 * Filling the caches of teachers behind servers before a run that learns from it: sample by sample, in any order, as answers come. What
 * has come is kept, whatever ends the work.
 *
 * @module
 */
import { LimbeckError } from "../../base/errors.ts";
import { exists } from "../../formats/files.ts";
import { servedHeadPath } from "../../distill/inputs/served_teacher.ts";
import type { Recipe } from "../../distill/recipe/recipe.ts";
import { recipeOfTeacher, type ServedTeacher, servedTeachers } from "../../distill/recipe/teachers.ts";
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
 * Asks servers for what is missing of a run's caches: each of its teachers that are behind one, all at once. Where one fails, the others are
 * asked nothing more; what is under way is waited for and kept.
 *
 * @returns one for each of those teachers, in the recipe's order
 * @throws {InputError} the recipe does not do, or a server's answers are not what was asked for
 * @throws {BudgetError} a budget is used up; what came is kept
 * @throws {ServedError} a server cannot be reached, or goes on failing; what came is kept
 */
export async function fillServed(recipe: Recipe, options: FillServedOptions): Promise<FilledServed[]> {
  const { place, plugins, signal, stopped } = options;
  const served = servedTeachers(recipe.teacher);
  for (const one of served) {
    const { teacher } = recipeOfTeacher(recipe, one.index);
    await inWordsOf(one, () => fetchMissingHead(teacher, toldOf(one.name, options)));
  }
  const wanted = await wantedAnswers({ recipe, place }, plugins, signal);
  let failed = false;
  const filled = await Promise.allSettled(served.map(async (one) => {
    const { index, name, server } = one;
    const own = wanted.find(({ teacher }) => teacher === index)!;
    try {
      const made = await inWordsOf(one, () =>
        fillWanted(own, server, {
          ...toldOf(name, options),
          stopped: () => failed || (stopped?.() ?? false),
        }));
      return name === undefined ? made : { teacher: name, ...made };
    } catch (error) {
      failed = true;
      throw error;
    }
  }));
  return filled.map((one) => {
    if (one.status === "rejected") throw one.reason;
    return one.value;
  });
}

/** What is told of one of several teachers says which. */
function toldOf(name: string | undefined, options: FillServedOptions): WorkOptions {
  const { place: _place, plugins: _plugins, onStage, onProgress, ...rest } = options;
  return {
    ...rest,
    ...(onStage
      ? { onStage: (message) => onStage(name === undefined ? message : `${name}: ${message}`) }
      : {}),
    ...(onProgress ? { onProgress: (done, all) => onProgress(done, all, name) } : {}),
  };
}

/** Errors speak of `teacher.server`: of one of several teachers its own field is meant, and its name is told. */
async function inWordsOf<T>({ field, name }: ServedTeacher, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof LimbeckError) || name === undefined) throw error;
    const named = (text: string) => text.replaceAll(/\bteacher\.server\b/g, field);
    const hint = `It is about the teacher ${name}. ${named(error.hint ?? "")}`.trim();
    throw Object.assign(error, { message: named(error.message), hint });
  }
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
