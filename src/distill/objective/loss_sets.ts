/**
 * Which losses one pass over the head computes: the passes of a training step, and what is measured on held-out samples.
 *
 * @module
 */
import { DEFAULT_DEVICE } from "../../gpu/description.ts";
import { compileRowLoss } from "../../losses/compile.ts";
import { looksAtTarget } from "../../losses/sparse_target.ts";
import type { ResolvedLoss, RowLossShape } from "../../losses/traced.ts";
import type { Registry } from "../../registry/registry.ts";
import type { Balance, Learner, ObjectiveTerm } from "../recipe/recipe.ts";
import { MONITORS } from "./monitors.ts";
import {
  companions,
  heldOutTerm,
  isRowTerm,
  learnerOf,
  measures,
  resolve,
  type ResolvedTerm,
  termAt,
} from "./terms.ts";
import { isPairTerm } from "./pairs.ts";
import type { TokenMasks } from "./token_masks.ts";

/** Names of the states that hold sums of losses. */
export const LOSS_SUMS = {
  train: "losses.train",
  evaluate: "losses.evaluate",
  teacher: "losses.teacher",
} as const;

/** Losses that one pass over the head computes. */
export interface LossSet {
  /** One for each value, in order: the key under which it is reported. */
  readonly names: readonly string[];
  readonly terms: readonly ResolvedLoss[];
  /** Whether the target's logits are needed. */
  readonly needsTarget: boolean;
  /** Whether what a cache has of the target is needed. */
  readonly needsCache: boolean;
  /**
   * Name of the step scalar with the one temperature of all that looks at the target, where that is made for one; absent where it is 1,
   * or any will do.
   */
  readonly temperature?: string;
}

/** The same losses where the target has every logit, of a set that looks at what a cache keeps of it. */
export function wholeSet<S extends LossSet>(set: S): S {
  return { ...set, needsTarget: set.needsCache, needsCache: false };
}

/** Losses that are measured in one block: the passes that compute them, one after another in the order of the values. */
export interface MeasuredLosses extends Pick<LossSet, "names" | "terms"> {
  readonly passes: readonly LossSet[];
}

/** Losses of the objective that one pass over the head computes, and what becomes of them. */
export interface LossPass extends LossSet {
  /** The model whose hidden states their gradient reaches; the other one is the target. */
  readonly learner: Learner;
  /** Gives them the size of the learner's pass without it. Such a pass has one loss. */
  readonly balance?: Balance;
  /** The loss over pairs of texts whose rows they are. Such a pass has one loss. */
  readonly pairs?: ResolvedLoss;
  /** Name of the state with the sums of the values. */
  readonly sums: string;
}

/** The losses of an objective, from which the sets are made. */
export interface ResolvedObjective {
  readonly registry: Registry;
  readonly recipe: readonly ObjectiveTerm[];
  /** The recipe's losses, in its order. */
  readonly terms: readonly ResolvedTerm[];
  readonly masks: TokenMasks;
  readonly shape: RowLossShape;
  /** Whether the target is made for one temperature, so that losses of different ones need passes of their own. */
  readonly oneTemperature: boolean;
  /** Whether the target's rows are of another vocabulary, and none of its positions is one of the learner's. */
  readonly aligned: boolean;
  /** Temperature at which the log-probabilities of labels are wanted in training, to weigh positions by; see `importance.ts`. */
  readonly importance?: number;
}

/** These keys mean the same in every run, whatever its objective: the loss at temperature 1. */
const BASICS = ["cross-entropy", "forward-kl"];

/** What is measured of the teacher, and of a model alone. */
export function crossEntropySet({ registry, shape }: ResolvedObjective): LossSet {
  return lossSet([measured(registry, "cross-entropy")], shape);
}

/**
 * What is measured of the student: cross-entropy and forward KL first, then whatever else the objective has, then the monitors. What a
 * schedule changes is at the end of its course, so that measurements of different steps can be compared.
 */
export function evaluationSet(resolved: ResolvedObjective): MeasuredLosses {
  const { registry, recipe, terms, masks, shape, aligned } = resolved;
  // Of a cache, what is measured of the teacher would be something else under the same name.
  const isSeen = ({ loss, options }: Pick<ResolvedLoss, "loss" | "options">) =>
    !(shape.sparseTarget || aligned) || !looksAtTarget(loss, options);
  const monitors = MONITORS.filter((loss) => isSeen({ loss, options: {} })).map((loss) => ({
    ...{ loss, options: {}, name: loss.id },
    ...{ weight: 0, temperature: 1, monitor: true },
  }));
  const always = [...BASICS, ...monitors.map(({ name }) => name)];
  const others = terms.map((t, i) => termAt(t, recipe[i]!, Infinity))
    .filter((_, i) => learnerOf(recipe[i]!) === "student")
    .filter(isRowTerm)
    .filter((t) => !isPairTerm(t))
    .map(heldOutTerm)
    .map((t) => (always.includes(t.name) ? { ...t, name: t.name + measuredHow(t, masks) } : t))
    .filter((t) => !always.includes(t.name))
    .map((t) => ({ ...t, temperatureVaries: false, monitor: true }))
    .flatMap((t) => [t, ...companions(t).filter(isSeen)]);
  const basics = BASICS.map((loss) => measured(registry, loss)).filter((t) => !aligned || isSeen(t));
  const all = [...basics, ...others, ...monitors];
  const passes = byTemperature(all, resolved).map((own) => lossSet(own, shape));
  return {
    passes,
    terms: passes.flatMap((pass) => pass.terms),
    names: passes.flatMap((pass) => pass.names),
  };
}

/**
 * Losses parted by the temperature at which they look at the target, where it is made for one; all together otherwise. Those that do not
 * look at it go with the first.
 */
function byTemperature(
  terms: readonly ResolvedLoss[],
  { oneTemperature }: Pick<ResolvedObjective, "oneTemperature">,
): readonly (readonly ResolvedLoss[])[] {
  if (!oneTemperature) return [terms];
  const keyOf = ({ loss, options, temperature, temperatureVaries, name }: ResolvedLoss) =>
    !looksAtTarget(loss, options) ? undefined : temperatureVaries ? name : temperature;
  const keys = new Set(terms.map(keyOf).filter((key) => key !== undefined));
  const [first, ...others] = keys;
  const found = [first, ...others].map((key) => terms.filter((t) => keyOf(t) === key));
  if (first === undefined) return found;
  return [terms.filter((t) => [undefined, first].includes(keyOf(t))), ...found.slice(1)];
}

/** What is measured of each loss over pairs. */
export function pairSets({ terms, shape }: ResolvedObjective): LossSet[] {
  return terms.filter(isPairTerm).map((t) => lossSet([{ ...t, monitor: true }], shape));
}

/** A loss without options at temperature 1, of which only the value is wanted. */
function measured(registry: Registry, loss: string): ResolvedLoss {
  const term = resolve(registry, { loss, weight: 0, temperature: 1, options: {} }, loss, "objective");
  return { ...term as ResolvedLoss, monitor: true };
}

/** What tells a loss from the one of the same name at temperature 1 over the supervised tokens; empty where nothing does. */
function measuredHow({ temperature, tokenMask = 0 }: ResolvedLoss, masks: TokenMasks): string {
  return (temperature === 1 ? "" : ` at ${temperature}`) + masks.description(tokenMask);
}

function lossSet(terms: readonly ResolvedLoss[], shape: RowLossShape): LossSet {
  const { needsTeacher, needsCache } = compileRowLoss(terms, shape, DEFAULT_DEVICE);
  const looking = terms.find((t) =>
    (t.temperature !== 1 || t.temperatureVaries) && looksAtTarget(t.loss, t.options)
  );
  return {
    ...{ terms, names: terms.map((t) => t.name), needsTarget: needsTeacher, needsCache },
    ...(looking ? { temperature: `${looking.name}.temperature` } : {}),
  };
}

/**
 * The passes over the head of a training step, for each learner those without balance first. Losses with one learner share a pass, and
 * so the logits and sweeps; a balanced one needs a gradient of its own, and where the target is made for one temperature, so does each
 * temperature.
 */
export function trainingPasses(resolved: ResolvedObjective): LossPass[] {
  const { registry, terms, recipe, shape, importance } = resolved;
  const found: LossPass[] = [];
  const add = (
    own: readonly ResolvedLoss[],
    learner: Learner,
    { balance, pairs }: Pick<LossPass, "balance" | "pairs"> = {},
  ) => {
    const sums = found.length === 0 ? LOSS_SUMS.train : `${LOSS_SUMS.train}.${found.length}`;
    const kind = { ...(balance ? { balance } : {}), ...(pairs ? { pairs } : {}) };
    found.push({ ...lossSet(own, shape), learner, sums, ...kind });
  };
  const withMeasures = (own: readonly ResolvedLoss[]) => [...own, ...own.flatMap(measures)];
  const withSurprise = (own: readonly ResolvedLoss[], learner: Learner) =>
    importance !== undefined && learner === "student" ? [...own, surprise(registry, importance)] : own;
  for (const learner of ["student", "teacher"] as const) {
    const own = terms.flatMap((term, i) => (isRowTerm(term) ? [{ term, ...recipe[i]! }] : []))
      .filter((t) => learnerOf(t) === learner);
    const plain = own.filter((t) => !t.balance && !isPairTerm(t.term));
    if (plain.length > 0) {
      const parts = byTemperature(withMeasures(plain.map((t) => t.term)), resolved);
      parts.forEach((part, i) => add(i === 0 ? withSurprise(part, learner) : part, learner));
    }
    for (const { term, balance } of own) {
      if (!balance) continue;
      // What its controller measures at another temperature is no part of what is balanced.
      const [first, ...others] = byTemperature(withMeasures([term]), resolved);
      add(first!, learner, { balance });
      for (const part of others) add(part, learner);
    }
    for (const { term } of own) if (isPairTerm(term)) add(withMeasures([term]), learner, { pairs: term });
  }
  return found;
}

/** Name of the value -log q(label) of each position that importance weights are made of. */
export const SURPRISE = "on-policy surprise";

function surprise(registry: Registry, temperature: number): ResolvedLoss {
  return { ...measured(registry, "cross-entropy"), name: SURPRISE, temperature };
}
