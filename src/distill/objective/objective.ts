/**
 * A recipe's objective: its losses looked up, their options checked, compiled into row kernels for training and measuring.
 *
 * @module
 */
import { DEFAULT_ADAPTER } from "../../gpu/description.ts";
import type { Loss } from "../../registry/contract.ts";
import type { Registry } from "../../registry/registry.ts";
import { initialScalars, type ResolvedLoss, type RowLossShape } from "../../losses/traced.ts";
import { compileRowLoss } from "../../losses/compile.ts";
import { looksAtTarget, type SparseTarget } from "../../losses/sparse_target.ts";
import type { Executable } from "../../tensor/executable.ts";
import type { Graph } from "../../tensor/graph.ts";
import type { ControlledOptions } from "./controllers.ts";
import type { ResolvedFeature } from "./feature_losses.ts";
import type { RowLosses } from "./chunked_loss.ts";
import { MONITORS } from "./monitors.ts";
import { ensureCached, sparseTarget } from "./cache.ts";
import {
  companions,
  heldOutTerm,
  isRowTerm,
  learnerOf,
  measures,
  resolve,
  type ResolvedTerm,
  termAt,
  uniqueNames,
} from "./terms.ts";
import type { Balance, Learner, ObjectiveTerm, TeacherCacheRecipe } from "../recipe/recipe.ts";
import { TokenMasks } from "./token_masks.ts";

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
}

/** Losses of the objective that one pass over the head computes, and what becomes of them. */
export interface LossPass extends LossSet {
  /** The model whose hidden states their gradient reaches; the other one is the target. */
  readonly learner: Learner;
  /** Gives them the size of the learner's pass without it. Such a pass has one loss. */
  readonly balance?: Balance;
  /** Name of the state with the sums of the values. */
  readonly sums: string;
}

/** The losses of a recipe. */
export class Objective {
  /** As they are before the first step, in the recipe's order. */
  readonly terms: readonly ResolvedTerm[];
  /** Those over rows of logits. */
  readonly rows: readonly ResolvedLoss[];
  /** Those over inner values of the models. */
  readonly features: readonly ResolvedFeature[];
  /** The passes over the head of a training step: for each learner the one without balance first. */
  readonly passes: readonly LossPass[];
  /**
   * Cross-entropy and forward KL first, then whatever else the objective has, then the monitors. What a schedule changes is at the end
   * of its course, so that measurements of different steps can be compared.
   */
  readonly evaluation: LossSet;
  readonly crossEntropy: LossSet;
  /** The tokens that its losses count. */
  readonly masks: TokenMasks;
  /** Every loss plugin in use, each once. */
  readonly plugins: readonly Loss[];
  /** What a cache keeps of the teacher; absent where the teacher itself is there. */
  readonly target: SparseTarget | undefined;
  readonly #recipe: readonly ObjectiveTerm[];
  readonly #vocabulary: number;

  /**
   * @param cache Where the target of the student's losses comes from a cache
   * @throws {InputError} on an unknown loss, an option or a schedule that it refuses, or one that the cache cannot serve
   */
  constructor(
    registry: Registry,
    recipe: readonly ObjectiveTerm[],
    vocabulary: number,
    cache?: TeacherCacheRecipe,
  ) {
    this.#recipe = recipe;
    this.#vocabulary = vocabulary;
    const names = uniqueNames(recipe);
    const masks = new TokenMasks(recipe);
    const terms = recipe.map((term, i): ResolvedTerm => ({
      ...resolve(registry, term, names[i]!, `objective.${i}`),
      tokenMask: masks.bit(term),
    }));
    const rows = terms.filter(isRowTerm);
    const target = cache && sparseTarget(cache, rows, vocabulary);
    if (target) terms.forEach((term, i) => ensureCached(term, target, `recipe objective.${i}`));
    // Of a cache, what is measured of the teacher would be something else under the same name.
    const isSeen = ({ loss, options }: Pick<ResolvedLoss, "loss" | "options">) =>
      !target || !looksAtTarget(loss, options);
    const measured = (loss: string): ResolvedLoss => ({
      ...resolve(
        registry,
        { loss, weight: 0, temperature: 1, options: {} },
        loss,
        "objective",
      ) as ResolvedLoss,
      monitor: true,
    });
    const basics = ["cross-entropy", "forward-kl"];
    // These keys mean the same in every run, whatever its objective: the loss at temperature 1.
    const always = [...basics, ...MONITORS.map(({ id }) => id)];
    const others = terms.map((t, i) => termAt(t, recipe[i]!, Infinity))
      .filter((_, i) => learnerOf(recipe[i]!) === "student")
      .filter(isRowTerm)
      .map(heldOutTerm)
      .map((t) => (always.includes(t.name) ? { ...t, name: t.name + measuredHow(t, masks) } : t))
      .filter((t) => !always.includes(t.name))
      .map((t) => ({
        ...t,
        temperatureVaries: false,
        monitor: true,
      }))
      .flatMap((t) => [t, ...companions(t).filter(isSeen)]);
    const monitors = MONITORS.filter((loss) => isSeen({ loss, options: {} })).map((loss) => ({
      ...{ loss, options: {}, name: loss.id },
      ...{ weight: 0, temperature: 1, monitor: true },
    }));
    const shape = { vocabulary, ...(target ? { sparseTarget: target } : {}) };
    this.target = target;
    this.masks = masks;
    this.terms = terms;
    this.rows = rows;
    this.features = terms.filter((t) => !isRowTerm(t)) as ResolvedFeature[];
    this.passes = passes(terms, recipe, shape);
    this.evaluation = lossSet([...basics.map(measured), ...others, ...monitors], shape);
    this.crossEntropy = lossSet([measured("cross-entropy")], shape);
    this.plugins = [...new Set(terms.map((t) => t.loss))];
  }

  /**
   * The objective's losses as they are in a step.
   *
   * @param step Steps done before it, from 0
   * @param controlled What controllers have set for it
   */
  at(step: number, controlled: ControlledOptions = {}): ResolvedTerm[] {
    return this.terms.map((term, i) => {
      const now = termAt(term, this.#recipe[i]!, step);
      return { ...now, options: { ...now.options, ...controlled[term.name] } };
    });
  }

  /** What the head needs to trace one of the sets in a block. */
  rowLosses(set: LossSet, graph: Graph): RowLosses {
    const { terms } = set;
    const tokenMasks = this.masks.needed;
    const sparseTarget = this.target;
    const shape = { vocabulary: this.#vocabulary, tokenMasks, ...(sparseTarget ? { sparseTarget } : {}) };
    return {
      valueCount: terms.length,
      weights: terms.map((t) => (t.monitor ? undefined : graph.scalar(`${t.name}.weight`))),
      needsTarget: set.needsTarget,
      tokenMasks,
      needsCache: set.needsCache,
      compile: (adapter, gradient) => {
        const kernel = compileRowLoss(terms, shape, adapter, { gradient });
        return {
          name: kernel.label,
          wgsl: kernel.wgsl,
          memoryWords: kernel.memoryWords,
          size: (rows, part) => kernel.size(rows, (name) => graph.scalar(name), part),
          groups: (rows) => kernel.groups(rows),
        };
      },
    };
  }

  /**
   * Writes weights, temperatures and options of a step into the step buffer; `step` counts from 0.
   *
   * @param counts Tokens of the window in each mask. The gradient is divided by those of mask 0; what counts others makes up for it
   *   in its weight, so each loss is the mean over its own tokens
   * @param controlled What controllers have set for the step
   */
  setScalars(
    executable: Executable,
    step: number,
    counts: readonly number[],
    controlled: ControlledOptions = {},
  ): void {
    const terms = this.at(step, controlled).map((term) => {
      const count = counts[term.tokenMask ?? 0]!;
      return { ...term, weight: count > 0 ? term.weight * (Math.max(1, counts[0]!) / count) : 0 };
    });
    for (const [name, value] of initialScalars(terms.filter(isRowTerm))) executable.setScalar(name, value);
    for (const term of terms) {
      if (!isRowTerm(term)) executable.setScalar(`${term.name}.weight`, term.weight);
    }
  }

  /** Writes what measuring needs into the step buffer. */
  setEvaluationScalars(executable: Executable): void {
    for (const [name, value] of initialScalars(this.evaluation.terms)) executable.setScalar(name, value);
  }
}

/** What tells a loss from the one of the same name at temperature 1 over the supervised tokens; empty where nothing does. */
function measuredHow({ temperature, tokenMask = 0 }: ResolvedLoss, masks: TokenMasks): string {
  return (temperature === 1 ? "" : ` at ${temperature}`) + masks.description(tokenMask);
}

function lossSet(terms: readonly ResolvedLoss[], shape: RowLossShape): LossSet {
  const { needsTeacher, needsCache } = compileRowLoss(terms, shape, DEFAULT_ADAPTER);
  return { terms, names: terms.map((t) => t.name), needsTarget: needsTeacher, needsCache };
}

/** Losses with one learner share a pass, and so the logits and sweeps; a balanced one needs a gradient of its own. */
function passes(
  terms: readonly ResolvedTerm[],
  recipe: readonly ObjectiveTerm[],
  shape: RowLossShape,
): LossPass[] {
  const found: LossPass[] = [];
  const add = (own: readonly ResolvedLoss[], learner: Learner, balance?: Balance) => {
    const sums = found.length === 0 ? LOSS_SUMS.train : `${LOSS_SUMS.train}.${found.length}`;
    const all = [...own, ...own.flatMap(measures)];
    found.push({ ...lossSet(all, shape), learner, sums, ...(balance ? { balance } : {}) });
  };
  for (const learner of ["student", "teacher"] as const) {
    const own = terms.flatMap((term, i) => (isRowTerm(term) ? [{ term, ...recipe[i]! }] : []))
      .filter((t) => learnerOf(t) === learner);
    const plain = own.filter((t) => !t.balance);
    if (plain.length > 0) add(plain.map((t) => t.term), learner);
    for (const { term, balance } of own) if (balance) add([term], learner, balance);
  }
  return found;
}
