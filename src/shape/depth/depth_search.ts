/**
 * A search for the layers to keep, with the rules beside it and the place of each plan among all that was evaluated.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { SubsetValues } from "./evaluation_cache.ts";
import { type DepthLimits, depthProgram, depthProgramEvaluations } from "./dynamic_program.ts";
import { cosineOrder, evenlySpaced, everyOther, keepByOrder } from "./rules.ts";
import { beam, beamEvaluations, exhaustive, exhaustiveEvaluations } from "./searches.ts";
import { combinationCount, type EvaluatedSubset, subsetKey, without } from "./subsets.ts";

/** Searches that evaluate subsets, and rules that do not. */
export const DEPTH_SEARCHES = ["dp", "exhaustive", "beam", "cosine", "every-other", "evenly-spaced"] as const;

/** How layers are chosen. */
export type DepthSearch = typeof DEPTH_SEARCHES[number];

/** What is searched for. */
export interface DepthGoal {
  readonly search: DepthSearch;
  /** Layers that stay. */
  readonly layers: number;
  /** Layers at the end that always stay. */
  readonly keepLast: number;
  /** Subsets that a beam search goes on with. */
  readonly beamWidth: number;
}

/** The model as a search sees it. */
export interface SearchedModel {
  readonly layers: number;
  /** Measures a subset; asked once for each. */
  measure(kept: readonly number[]): Promise<SubsetValues>;
  /** What is searched by, lower is better; infinite where it is no number. */
  valueOf(values: SubsetValues): number;
  /** Cosine of each layer's input and output. */
  cosines(): Promise<readonly number[]>;
}

/** A subset that was evaluated. */
export interface MeasuredSubset extends EvaluatedSubset {
  readonly values: SubsetValues;
}

/** A plan and how it compares. */
export interface DepthPlan extends MeasuredSubset {
  /** What found it: a search, a rule, or `best` for the best of all that was evaluated. */
  readonly by: DepthSearch | "best";
  /** Place among the evaluated subsets of as many layers, from 1; equal values share a place. */
  readonly rank: number;
}

/** What a search finds. */
export interface DepthFindings {
  readonly full: MeasuredSubset;
  readonly plan: DepthPlan;
  /** The plans of the rules, and the best that was evaluated where the search did not find it. */
  readonly others: readonly DepthPlan[];
  /** Subsets of as many layers: evaluated, and possible under the goal. */
  readonly evaluated: number;
  readonly possible: number;
  /** Cosine of each layer's input and output. */
  readonly cosines: readonly number[];
  /** Everything that was evaluated, in order. */
  readonly subsets: readonly MeasuredSubset[];
  /** The dynamic programme's plans for fewer removals too. */
  readonly byLayers: readonly {
    readonly layers: number;
    readonly kept: readonly number[];
    readonly value: number;
  }[];
}

/** How far a search is. */
export interface DepthProgress {
  readonly done: number;
  /** Evaluations in all, or the most that there may be. */
  readonly total: number;
  readonly kept: readonly number[];
  readonly values: SubsetValues;
}

/** Most subsets that an exhaustive search may evaluate. */
const MOST_SUBSETS = 100_000;

/**
 * Requires that a goal can be reached.
 *
 * @param layers Of the model
 * @throws {InputError} saying what can
 */
export function checkDepthGoal({ search, layers: kept, keepLast }: DepthGoal, layers: number): void {
  const refuse = (message: string, hint: string): never => {
    throw new InputError(message, { hint });
  };
  if (kept >= layers || kept < 1) {
    refuse(
      `${kept} of the model's ${layers} layers cannot be what is left`,
      `Choose --layers from 1 to ${layers - 1}.`,
    );
  }
  if (keepLast > kept) {
    refuse(
      `${keepLast} layers at the end cannot stay where ${kept} stay in all`,
      `Lower --keep-last to at most ${kept}.`,
    );
  }
  const fixed = ruled(search, kept, layers);
  if (fixed && fixed.length !== kept) {
    refuse(
      `every other of ${layers} layers is ${fixed.length}, not ${kept}`,
      `Set --layers ${fixed.length}.`,
    );
  }
  if (fixed && !holdsLast(fixed, layers, keepLast)) {
    refuse(
      `${search} keeps layers ${fixed.join(", ")}, not the last ${keepLast}`,
      "Choose another --search, or lower --keep-last.",
    );
  }
  const count = combinationCount(layers - keepLast, layers - kept);
  if (search === "exhaustive" && count > MOST_SUBSETS) {
    refuse(
      `there are ${count} ways to keep ${kept} of ${layers} layers, more than ${MOST_SUBSETS}`,
      "Choose --search dp or beam.",
    );
  }
}

/** The layers of a rule that looks at no model; undefined for other searches. */
function ruled(search: DepthSearch, kept: number, layers: number): number[] | undefined {
  if (search === "every-other") return everyOther(layers);
  return search === "evenly-spaced" ? evenlySpaced(layers, kept) : undefined;
}

function holdsLast(kept: readonly number[], layers: number, keepLast: number): boolean {
  return without(layers, kept).every((layer) => layer < layers - keepLast);
}

/**
 * Searches.
 *
 * @throws {InputError} for a goal that cannot be reached, or where no subset gives a finite value
 */
export async function searchDepth(
  model: SearchedModel,
  goal: DepthGoal,
  onProgress: (progress: DepthProgress) => void = () => {},
): Promise<DepthFindings> {
  checkDepthGoal(goal, model.layers);
  const { layers } = model;
  const limits = limitsOf(goal, layers);
  const measured = new Map<string, MeasuredSubset>();
  let done = 0;
  const total = mostEvaluations(goal, layers);
  const evaluate = async (kept: readonly number[]): Promise<MeasuredSubset> => {
    const key = subsetKey(kept);
    let found = measured.get(key);
    if (!found) {
      const values = await model.measure(kept);
      measured.set(key, found = { kept: [...kept], value: model.valueOf(values), values });
      onProgress({ done: ++done, total: Math.max(total, done), kept, values });
    }
    return found;
  };
  const metric = async (kept: readonly number[]) => (await evaluate(kept)).value;

  const full = await evaluate(without(layers, []));
  if (!Number.isFinite(full.value)) {
    throw new InputError("the whole model gives no finite value, so there is nothing to compare with", {
      hint: "Measure it with `limbeck eval`: its weights are damaged, or not those of its config.",
    });
  }
  const cosines = await model.cosines();
  const byCosine = keepByOrder(cosineOrder(cosines), goal.layers, goal.keepLast);
  const rules: [DepthSearch, number[]][] = [
    ["cosine", byCosine],
    ["evenly-spaced", evenlySpaced(layers, goal.layers)],
    ["every-other", everyOther(layers)],
  ];
  let byLayers: DepthFindings["byLayers"] = [];
  let chosen: readonly number[] | undefined;
  switch (goal.search) {
    case "dp": {
      const { values, plans } = await depthProgram(limits, metric);
      chosen = plans.at(-1)!.at(-1);
      byLayers = plans.at(-1)!.flatMap((removed, m) =>
        removed ? [{ layers: layers - m, kept: without(layers, removed), value: values.at(-1)![m]! }] : []
      );
      chosen &&= without(layers, chosen);
      break;
    }
    case "exhaustive":
      chosen = (await exhaustive(limits, metric)).kept;
      break;
    case "beam":
      chosen = (await beam(limits, goal.beamWidth, metric)).kept;
      break;
    default:
      chosen = rules.find(([rule]) => rule === goal.search)![1];
  }
  const plan = chosen && await evaluate(chosen);
  if (!plan || !Number.isFinite(plan.value)) {
    throw new InputError(`no subset of ${goal.layers} layers that was evaluated gives a finite value`, {
      hint: "Keep more layers.",
    });
  }
  const fitting = rules.filter(([rule, kept]) =>
    rule !== goal.search && kept.length === goal.layers && holdsLast(kept, layers, goal.keepLast)
  );
  for (const [, kept] of fitting) await evaluate(kept);
  const equals = [...measured.values()].filter(({ kept }) => kept.length === goal.layers);
  const place = (by: DepthPlan["by"], subset: MeasuredSubset): DepthPlan => ({
    ...{ ...subset, by },
    rank: 1 + equals.filter(({ value }) => value < subset.value).length,
  });
  const best = equals.reduce((a, b) => (b.value < a.value ? b : a));
  const found = place(goal.search, plan);
  return {
    full,
    plan: found,
    others: [
      ...(best.value < plan.value ? [place("best", best)] : []),
      ...fitting.map(([rule, kept]) => place(rule, measured.get(subsetKey(kept))!)),
    ],
    evaluated: equals.length,
    possible: combinationCount(layers - goal.keepLast, layers - goal.layers),
    cosines,
    subsets: [...measured.values()],
    byLayers,
  };
}

/** Subsets that a search of a model with so many layers evaluates at most. */
export function mostEvaluations(goal: DepthGoal, layers: number): number {
  // What is not asked of the search: the full model, and up to three rules.
  return Math.max(1, searchEvaluations(goal, limitsOf(goal, layers))) + 4;
}

function limitsOf({ keepLast, layers: kept }: DepthGoal, layers: number): DepthLimits {
  return { layers, keepLast, mostRemoved: layers - kept };
}

function searchEvaluations({ search, beamWidth }: DepthGoal, limits: DepthLimits): number {
  if (search === "dp") return depthProgramEvaluations(limits);
  if (search === "exhaustive") return exhaustiveEvaluations(limits);
  return search === "beam" ? beamEvaluations(limits, beamWidth) : 1;
}
