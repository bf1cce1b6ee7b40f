/**
 * A recipe's objective: its losses looked up, their options checked, compiled into row kernels for training and measuring.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { compileRowLoss } from "../../losses/compile.ts";
import type { SparseTarget } from "../../losses/sparse_target.ts";
import { initialScalars, type ResolvedLoss, type RowLossShape } from "../../losses/traced.ts";
import type { Loss } from "../../registry/contract.ts";
import type { Registry } from "../../registry/registry.ts";
import type { Executable } from "../../tensor/executable.ts";
import type { Graph } from "../../tensor/graph.ts";
import { looksAtTarget } from "../../losses/sparse_target.ts";
import type { HiddenPrecision, ObjectiveTerm, OnPolicyRecipe, TeacherCacheRecipe } from "../recipe/recipe.ts";
import { ensureCached, hiddenPrecision, sparseTarget } from "./cache.ts";
import type { ControlledOptions } from "./controllers.ts";
import type { ResolvedFeature } from "./feature_losses.ts";
import {
  type GroupPass,
  groupPasses,
  groupScalars,
  refuseUnaligned,
  type TwoVocabularies,
} from "./groups/terms.ts";
import {
  crossEntropySet,
  evaluationSet,
  type LossPass,
  type LossSet,
  type MeasuredLosses,
  pairSets,
  type ResolvedObjective,
  trainingPasses,
} from "./loss_sets.ts";
import { isPairTerm } from "./pairs.ts";
import type { RowLosses } from "./row_loss.ts";
import { isGroupTerm, isRowTerm, resolve, type ResolvedTerm, termAt, uniqueNames } from "./terms.ts";
import { type TokenChoice, TokenMasks } from "./token_masks.ts";

/** What the losses meet in a run, where that is more than one live teacher and the data. */
export interface ObjectiveSetting {
  /** What a cache keeps of the teacher; where several are kept, a part of the distribution before hidden states. */
  readonly cache?: TeacherCacheRecipe | undefined;
  /** The field of the recipe that says so; `teacher.cache` when absent. */
  readonly cacheField?: string | undefined;
  /** Where some of the samples are texts of the student: losses that look at no teacher leave them out. */
  readonly onPolicy?: Pick<OnPolicyRecipe, "temperature" | "importance"> | undefined;
  /** Where the teacher has a vocabulary of its own. */
  readonly aligned?: TwoVocabularies | undefined;
  /** Whether the logits of the target are made for one temperature. */
  readonly oneTemperature?: boolean;
}

/** The losses of a recipe. */
export class Objective {
  /** As they are before the first step, in the recipe's order. */
  readonly terms: readonly ResolvedTerm[];
  /** The tokens that its losses count. */
  readonly masks: TokenMasks;
  /** The passes over the head of a training step: for each learner those without balance first. */
  readonly passes: readonly LossPass[];
  /** What is measured of the student on held-out samples. */
  readonly evaluation: MeasuredLosses;
  readonly crossEntropy: LossSet;
  /** The losses over pairs, as they are measured on held-out samples, each a set of its own. */
  readonly pairs: readonly LossSet[];
  /** How the hidden states are stored that the one teacher's logits are made of; undefined where no cache keeps them. */
  readonly hidden: HiddenPrecision | undefined;
  /** Its losses over groups of tokens, where the teacher has a tokenizer of its own; each a pass over the heads. */
  readonly groups: readonly GroupPass[];
  readonly #recipe: readonly ObjectiveTerm[];
  readonly #shape: RowLossShape;

  private constructor(
    { recipe, terms, masks, shape }: ResolvedObjective,
    passes: readonly LossPass[],
    evaluation: MeasuredLosses,
    crossEntropy: LossSet,
    pairs: readonly LossSet[],
    hidden: HiddenPrecision | undefined,
    groups: readonly GroupPass[],
  ) {
    [this.hidden, this.groups] = [hidden, groups];
    [this.terms, this.masks, this.#recipe, this.#shape] = [terms, masks, recipe, shape];
    [this.passes, this.evaluation, this.crossEntropy, this.pairs] = [passes, evaluation, crossEntropy, pairs];
  }

  /**
   * The objective of a recipe.
   *
   * @param setting Where the target is not one live teacher, or samples are not data alone
   * @throws {InputError} on an unknown loss, an option or a schedule that it refuses, or one that the cache cannot serve
   */
  static of(
    registry: Registry,
    recipe: readonly ObjectiveTerm[],
    vocabulary: number,
    { cache, cacheField, onPolicy, aligned, oneTemperature = false }: ObjectiveSetting = {},
  ): Objective {
    const names = uniqueNames(recipe);
    const found = recipe.map((term, i) => resolve(registry, term, names[i]!, `objective.${i}`));
    found.forEach((term, i) => refuseUnaligned(term, aligned, `recipe objective.${i}`));
    const choices = recipe.map((term, i): TokenChoice =>
      isPairTerm(found[i]!) ? { tokens: "pair" } : onPolicy ? choiceOnPolicy(term, found[i]!) : term
    );
    const heads: TokenChoice[] = found.some(isPairTerm) ? [{ tokens: "pairHead" }] : [];
    const masks = new TokenMasks(
      [...choices, ...heads],
      found.filter(isGroupTerm).map(({ loss, options }) => loss.rows(options)),
    );
    const terms = found.map((term, i): ResolvedTerm => ({
      ...term,
      tokenMask: isGroupTerm(term) ? masks.groupCount(term.loss.rows(term.options)) : masks.bit(choices[i]!),
      ...(isPairTerm(term) ? { countMask: masks.bit(heads[0]!) } : {}),
    }));
    if (cache && heads.length > 0) {
      throw new InputError("a teacher's cache holds nothing of rejected texts", {
        where: `recipe ${cacheField ?? "teacher.cache"}`,
        hint: `Leave it out, or "${found.find(isPairTerm)!.loss.id}".`,
      });
    }
    const target = cache && sparseTarget(cache, terms.filter(isRowTerm), vocabulary, cacheField);
    if (cache) terms.forEach((term, i) => ensureCached(term, target, `recipe objective.${i}`));
    const shape = { vocabulary, ...(target ? { sparseTarget: target } : {}) };
    const resolved = {
      ...{ registry, recipe, terms, masks, shape, oneTemperature, aligned: aligned !== undefined },
      ...(onPolicy?.importance ? { importance: onPolicy.temperature } : {}),
    };
    return new Objective(
      resolved,
      trainingPasses(resolved),
      evaluationSet(resolved),
      crossEntropySet(resolved),
      pairSets(resolved),
      hiddenPrecision(cache),
      groupPasses(registry, terms.filter(isGroupTerm), vocabulary, aligned),
    );
  }

  /** Its losses over rows of logits. */
  get rows(): readonly ResolvedLoss[] {
    return this.terms.filter(isRowTerm);
  }

  /** Its losses over inner values of the models. */
  get features(): readonly ResolvedFeature[] {
    return this.terms.filter((t): t is ResolvedFeature => !isRowTerm(t) && !isGroupTerm(t));
  }

  /** Every loss plugin in use, each once. */
  get plugins(): readonly Loss[] {
    return [...new Set(this.terms.map((t) => t.loss))];
  }

  /** What a cache keeps of the teacher's distribution; undefined where the target has logits for the whole vocabulary. */
  get target(): SparseTarget | undefined {
    return this.#shape.sparseTarget;
  }

  /** Whether the one teacher's target is stored: then its layers are no part of the training program. */
  get isStored(): boolean {
    return this.target !== undefined || this.hidden !== undefined;
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

  /** What the head needs to trace one of the sets in a block. @param vocabulary Of the learner, where it is not the student's */
  rowLosses(
    { terms, needsTarget, needsCache }: LossSet,
    graph: Graph,
    vocabulary: number = this.#shape.vocabulary,
  ): RowLosses {
    const tokenMasks = this.masks.needed;
    const { sparseTarget, ...whole } = this.#shape;
    // Where every logit is looked at, none is stored; see `wholeSet`.
    const shape = {
      ...{ ...whole, tokenMasks, vocabulary },
      ...(sparseTarget && !needsTarget ? { sparseTarget } : {}),
    };
    return {
      ...{ valueCount: terms.length, needsTarget, needsCache, tokenMasks },
      weights: terms.map((t) => (t.monitor ? undefined : graph.scalar(`${t.name}.weight`))),
      compile: (adapter, gradient) => {
        const { label, wgsl, memoryWords, size, groups, traffic } = compileRowLoss(terms, shape, adapter, {
          gradient,
        });
        return {
          ...{ name: label, wgsl, memoryWords, groups, traffic },
          size: (rows, part) => size(rows, (name) => graph.scalar(name), part),
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
      const count = counts[countMaskOf(term)]!;
      return { ...term, weight: count > 0 ? term.weight * (Math.max(1, counts[0]!) / count) : 0 };
    });
    executable.setScalars(initialScalars(terms.filter(isRowTerm)));
    for (const term of terms) {
      if (isGroupTerm(term)) executable.setScalars(groupScalars(term));
      else if (!isRowTerm(term)) executable.setScalar(`${term.name}.weight`, term.weight);
    }
  }

  /** Writes what measuring needs into the step buffer. */
  setEvaluationScalars(executable: Executable): void {
    executable.setScalars(initialScalars([this.evaluation, ...this.pairs].flatMap(({ terms }) => terms)));
    for (const term of this.at(Infinity)) {
      if (isGroupTerm(term)) executable.setScalars(groupScalars(term));
    }
  }
}

/** The mask over whose positions a loss is a mean. */
export function countMaskOf({ tokenMask = 0, countMask = tokenMask }: CountedTerm): number {
  return countMask;
}

/** What of a loss says over which positions its mean is. */
export interface CountedTerm {
  readonly tokenMask?: number;
  readonly countMask?: number;
}

/** A loss that looks at no teacher learns from the data, unless it names the student's own texts. */
function choiceOnPolicy({ tokens, source }: ObjectiveTerm, term: ResolvedTerm): TokenChoice {
  const choice = { ...(tokens ? { tokens } : {}), ...(source === undefined ? {} : { source }) };
  const isOfData = source === undefined && isRowTerm(term) && !looksAtTarget(term.loss, term.options);
  return isOfData ? { ...choice, data: true } : choice;
}
