/**
 * How the student writes within the program that trains it: blocks that share its weights, its adapter and the memory of intermediates, so
 * that all a rollout adds to a run is its keys and values.
 *
 * @module
 */
import type { Plan, Program } from "../../../tensor/plan.ts";
import type { Model } from "../../inputs/models.ts";
import { type PrivilegedTeacher, tableRows } from "../../inputs/privileged_teacher.ts";
import type { Recipe } from "../../recipe/recipe.ts";
import { attachOf, type Trained } from "../../trained/attach.ts";
import type { Trainables } from "../../trained/trainables.ts";
import { generationNames, type GeneratorOptions, traceGeneration } from "./generation_blocks.ts";

/** Before the names of the blocks. */
export const ROLLOUT = "rollout.";

/** Tokens of prompts that one pass takes in. */
const PREFILL_TOKENS = 64;

/** The student of a run and what is trained on it. */
interface RolloutSetup extends Trained {
  readonly recipe: Recipe;
  readonly student: Model;
  readonly trainables: Trainables;
  readonly privileged?: PrivilegedTeacher;
}

/** What the student writes with in a run that learns from its own texts. */
export function rolloutOptions(setup: RolloutSetup): GeneratorOptions {
  const { recipe: { train, data }, trainables } = setup;
  const attach = attachOf(setup);
  return {
    ...{ sequences: train.onPolicy!.together, length: data.contextLength, prefillTokens: PREFILL_TOKENS },
    ...(attach
      ? { attach: (graph, prompt) => attach(graph, (name) => trainables.view(graph, name), false, prompt) }
      : {}),
  };
}

/** Traces the blocks into the program of a run, where its recipe wants them. */
export function traceRollouts(program: Program, setup: RolloutSetup): void {
  const { recipe: { train, data }, student, privileged } = setup;
  if (!train.onPolicy) return;
  const place = { prefix: ROLLOUT, positions: tableRows(data, privileged) };
  traceGeneration(program, student, rolloutOptions(setup), place);
}

/** The blocks of a plan that only rollouts run. */
export function rolloutBlocks({ blocks }: Plan): string[] {
  const { prefill, decode, prompts } = generationNames(ROLLOUT);
  return [prefill, decode, prompts].filter((block) => blocks.has(block));
}
