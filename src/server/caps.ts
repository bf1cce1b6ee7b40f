/**
 * Bounds of what one request may ask for.
 *
 * @module
 */
import type { RecipeProblem } from "../distill/recipe/problems.ts";
import type { AdapterRecipe, Recipe } from "../distill/recipe/recipe.ts";
import { servedTeachers } from "../distill/recipe/teachers.ts";
import { type EvaluationTask, isWritten } from "../evaluation/tasks/task.ts";
import type { Task } from "../runs/task/task.ts";

/** Bounds of a run. */
export interface Caps {
  /** Optimiser steps. */
  readonly steps: number;
  /** Tokens of one optimiser step: those of a micro-batch times the micro-batches. */
  readonly tokensPerStep: number;
  readonly contextLength: number;
  readonly rank: number;
  /** Losses in an objective. */
  readonly losses: number;
  /** Seconds that a run may take, waiting aside. */
  readonly wallSeconds: number;
  /** Bytes on the GPU; what the device allows when absent. */
  readonly gpuBytes?: number;
  /** Checkpoints kept beside the best. */
  readonly checkpoints: number;
  /** Tokens of a sample text, or of a completion. */
  readonly generatedTokens: number;
}

/** Bounds where the operator sets none. */
export const DEFAULT_CAPS: Caps = {
  steps: 20_000,
  tokensPerStep: 262_144,
  contextLength: 32_768,
  rank: 256,
  losses: 16,
  wallSeconds: 24 * 3600,
  checkpoints: 10,
  generatedTokens: 1024,
};

/** What of a recipe is out of bounds. */
export function beyondCaps(recipe: Recipe, caps: Caps): RecipeProblem[] {
  const problems: RecipeProblem[] = [];
  const check = (path: string, value: number, most: number, of = "") => {
    if (value > most) {
      problems.push({ path, message: `${value}${of} is more than this service allows, ${most}` });
    }
  };
  const { train, data, samples, objective, limits } = recipe;
  check("train.steps", train.steps, caps.steps);
  check(
    "train.tokensPerMicroBatch",
    train.tokensPerMicroBatch * train.accumulation,
    caps.tokensPerStep,
    " tokens a step, with train.accumulation,",
  );
  check("train.keepCheckpoints", train.keepCheckpoints, caps.checkpoints);
  check("data.contextLength", data.contextLength, caps.contextLength);
  check("samples.tokens", samples.tokens, caps.generatedTokens);
  check("objective", objective.length, caps.losses, " losses");
  check("limits.watchdogSeconds", limits.watchdogSeconds, 600);
  // A request may name no address: what this machine reaches is its operator's to say.
  for (const { field } of servedTeachers(recipe.teacher)) {
    problems.push({
      path: field,
      message:
        "this service asks no other servers for its clients; fill teacher.cache with `limbeck cache` and train where it lies",
    });
  }
  const adapters: [string, AdapterRecipe | "none" | undefined][] = [
    ["adapter", recipe.adapter],
    ["teacher.adapter", recipe.teacher.adapter],
  ];
  for (const [path, adapter] of adapters) {
    if (adapter === undefined || adapter === "none") continue;
    check(`${path}.rank`, adapter.rank, caps.rank);
    for (const [pattern, rank] of Object.entries(adapter.rankPattern)) {
      check(`${path}.rankPattern.${pattern}`, rank, caps.rank);
    }
  }
  checkTasks("evaluate.tasks", recipe.evaluate?.tasks ?? [], caps, check);
  return problems;
}

/** What evaluation tasks may ask for. */
function checkTasks(
  path: string,
  tasks: readonly EvaluationTask[],
  caps: Caps,
  check: (path: string, value: number, most: number) => void,
): void {
  tasks.forEach((task, i) => {
    if (isWritten(task)) check(`${path}.${i}.maxTokens`, task.maxTokens, caps.generatedTokens);
    else if (task.kind !== "multiple-choice") {
      check(`${path}.${i}.window.length`, task.window.length ?? 0, caps.contextLength);
    }
  });
}

/** What of a task is out of bounds. */
export function beyondTaskCaps(task: Task, caps: Caps): RecipeProblem[] {
  if (task.task === "cache") {
    return beyondCaps(task.recipe, caps).map(({ path, ...problem }) => ({
      path: `recipe.${path}`,
      ...problem,
    }));
  }
  const problems: RecipeProblem[] = [];
  const check = (path: string, value: number | undefined, most: number) => {
    if (value === undefined || value <= most) return;
    problems.push({ path, message: `${value} is more than this service allows, ${most}` });
  };
  if (task.task === "residual" || task.task === "extract" || task.task === "merge-adapters") {
    check("rank", task.rank, caps.rank);
  }
  if (task.task === "shrink" || task.task === "evaluate") {
    check("contextLength", task.contextLength, caps.contextLength);
  }
  if (task.task === "evaluate") checkTasks("tasks", task.tasks, caps, check);
  return problems;
}
