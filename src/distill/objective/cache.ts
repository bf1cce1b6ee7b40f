/**
 * What an objective asks of a cached teacher, and which losses cannot be had with one.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { ResolvedLoss } from "../../losses/traced.ts";
import { cacheRefusal, looksAtTarget, type SparseTarget } from "../../losses/sparse_target.ts";
import { isRowTerm, measures, type ResolvedTerm } from "./terms.ts";
import type { HiddenPrecision, TeacherCacheRecipe } from "../recipe/recipe.ts";

/** How a cache keeps hidden states; undefined where it keeps a part of the distribution. */
export function hiddenPrecision(cache: TeacherCacheRecipe | undefined): HiddenPrecision | undefined {
  return cache?.payload === "hidden" ? cache.precision as HiddenPrecision : undefined;
}

/**
 * What a cache keeps of the distribution for these losses; undefined where it keeps hidden states. Held-out losses are measured at
 * temperature 1 too.
 *
 * @param field Where the recipe says so
 */
export function sparseTarget(
  cache: TeacherCacheRecipe,
  terms: readonly ResolvedLoss[],
  vocabulary: number,
  field = "teacher.cache",
): SparseTarget | undefined {
  const { topK, samples } = cache;
  if (hiddenPrecision(cache)) return undefined;
  if (topK === undefined) return { kind: "samples", entries: samples!, temperatures: [] };
  if (topK > vocabulary) {
    throw new InputError(`is ${topK}, but the vocabulary has ${vocabulary} tokens`, {
      where: `recipe ${field}.topK`,
      hint: `set it to at most ${vocabulary}`,
    });
  }
  return { kind: "top-k", entries: topK, temperatures: cacheTemperatures(terms) };
}

/** Temperatures at which a cache of the largest logits knows what the others weigh, for these losses. */
export function cacheTemperatures(terms: readonly ResolvedLoss[]): number[] {
  const own = terms.filter(({ loss, options }) => looksAtTarget(loss, options)).map((t) => t.temperature);
  return [...new Set([1, ...own])].sort((a, b) => a - b);
}

/**
 * @param target Absent where the cache keeps hidden states: then every loss over logits can be had
 * @throws {InputError} if a loss cannot be had with a cached teacher
 */
export function ensureCached(term: ResolvedTerm, target: SparseTarget | undefined, where: string): void {
  const refuse = (path: string, message: string, hint: string): never => {
    throw new InputError(`with teacher.cache, "${term.loss.id}" ${message}`, { where: path, hint });
  };
  const instead = "choose another loss, or leave teacher.cache out";
  if (!isRowTerm(term)) {
    return refuse(where, "cannot be had: a cache holds logits, no inner values of the teacher", instead);
  }
  if (!target) return;
  const { loss, options, temperature, temperatureVaries } = term;
  if (!looksAtTarget(loss, options)) return;
  const reason = cacheRefusal(loss, options, target);
  if (reason) {
    refuse(where, `cannot be had: ${reason}`, instead);
  } else if (measures(term).some((m) => looksAtTarget(m.loss, m.options))) {
    refuse(
      `${where}.options`,
      "cannot measure in training what the teacher gives the label: a cache may lack it",
      "leave out the option that asks for a controller, such as curriculum, or leave teacher.cache out",
    );
  } else if (temperatureVaries) {
    refuse(
      `${where}.schedule.temperature`,
      "cannot change its temperature: a cache is made for given temperatures",
      "give it one temperature, or leave teacher.cache out",
    );
  } else if (target.kind === "samples" && temperature !== 1) {
    refuse(
      `${where}.temperature`,
      `must have temperature 1, not ${temperature}: samples are drawn from the teacher as it is`,
      "set it to 1, or cache the largest logits with teacher.cache.topK",
    );
  }
}
