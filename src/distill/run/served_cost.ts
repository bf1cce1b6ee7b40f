/**
 * What a teacher behind a server will be asked for.
 *
 * @module
 */
import { cacheBytes } from "../teacher/plan_pass.ts";
import { sampleKeys } from "../teacher/origin.ts";
import type { OpenedRecipe } from "./open_recipe.ts";

/** What filling the cache of a served teacher takes, as if nothing of it were there yet. */
export interface ServedCost {
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

/** Undefined where the teacher is not behind a server. */
export function servedCost(
  { recipe, prepared, setup }: Omit<OpenedRecipe, "warnings">,
): ServedCost | undefined {
  const { server } = recipe.teacher;
  if (!server) return undefined;
  const different = new Map<string, number>();
  for (
    const [{ ids }, { hash }] of sampleKeys([...prepared.train, ...prepared.heldOut], setup.objective.masks)
  ) {
    different.set(hash, ids.length + 1);
  }
  const requests = different.size;
  const tokens = [...different.values()].reduce((sum, n) => sum + n, 0);
  const { row, total } = cacheBytes(setup, prepared)!;
  const { budget = {}, requestsPerMinute = Infinity, tokensPerMinute = Infinity, url, model } = server;
  return {
    ...{ url, model, requests, tokens, cacheBytes: total, bytesPerToken: row },
    minutes: Math.max(requests / requestsPerMinute, tokens / tokensPerMinute),
    withinBudget: requests <= (budget.requests ?? Infinity) && tokens <= (budget.tokens ?? Infinity),
  };
}
