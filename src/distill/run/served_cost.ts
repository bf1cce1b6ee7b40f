/**
 * What a teacher behind a server will be asked for.
 *
 * @module
 */
import { servedTeachers } from "../recipe/teachers.ts";
import { taggedChoice } from "../teacher/choose.ts";
import { cacheBytes } from "../teacher/plan_pass.ts";
import { samplesOf, setupOf } from "../teacher/teacher_targets.ts";
import { sampleKeys } from "../teacher/origin.ts";
import type { OpenedRecipe } from "./open_recipe.ts";

/** What filling the cache of a served teacher takes, as if nothing of it were there yet. */
export interface ServedCost {
  /** What the teacher is called; absent where it is the only one. */
  readonly name?: string;
  readonly url: string;
  readonly model: string;
  /** Requests, probes and repetitions aside: one for each different sample. */
  readonly requests: number;
  /** Tokens of prompts, and the one that is written after each. */
  readonly tokens: number;
  /** Bytes of the cache, and of each position that counts. */
  readonly cacheBytes: number;
  readonly bytesPerToken: number;
  /** Minutes that the limits of teacher.server make it last at the least; 0 without any. */
  readonly minutes: number;
  /** Whether the budget allows as much. */
  readonly withinBudget: boolean;
}

/** What each of the teachers behind servers will be asked for; none where no teacher is. */
export function servedCosts({ recipe, prepared, setup }: Omit<OpenedRecipe, "warnings">): ServedCost[] {
  const choice = taggedChoice(prepared);
  return servedTeachers(recipe.teacher).map(({ index, name, server }) => {
    const own = choice ? samplesOf(choice, index, prepared) : prepared;
    const of = setupOf(setup, index);
    const different = new Map<string, number>();
    for (const [{ ids }, { hash }] of sampleKeys([...own.train, ...own.heldOut], setup.objective.masks)) {
      different.set(hash, ids.length + 1);
    }
    const requests = different.size;
    const tokens = [...different.values()].reduce((sum, n) => sum + n, 0);
    const { row, total } = cacheBytes(of, own)!;
    const { budget = {}, requestsPerMinute = Infinity, tokensPerMinute = Infinity, url, model } = server;
    return {
      ...(name === undefined ? {} : { name }),
      ...{ url, model, requests, tokens, cacheBytes: total, bytesPerToken: row },
      minutes: Math.max(requests / requestsPerMinute, tokens / tokensPerMinute),
      withinBudget: requests <= (budget.requests ?? Infinity) && tokens <= (budget.tokens ?? Infinity),
    };
  });
}
