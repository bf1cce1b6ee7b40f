/**
 * A recipe's objective: its losses looked up, their options checked, compiled into row kernels for training and measuring.
 *
 * @module
 */
import { InputError } from "../errors.ts";
import { DEFAULT_ADAPTER } from "../gpu/description.ts";
import type { Loss } from "../registry/contract.ts";
import type { Registry } from "../registry/registry.ts";
import {
  compileRowLoss,
  initialScalars,
  looksAtLabel,
  type ResolvedLoss,
  type RowLossShape,
} from "../registry/divergence.ts";
import { cacheRefusal, looksAtTarget, type SparseTarget } from "../registry/sparse_target.ts";
import type { Executable } from "../tensor/executable.ts";
import type { Graph } from "../tensor/graph.ts";
import { type ControlledOptions, controllerOf, measureName } from "./controllers.ts";
import { checkFeatureTerm, type ResolvedFeature } from "./feature_losses.ts";
import type { RowLosses } from "./head.ts";
import { MONITORS } from "./monitors.ts";
import type { Balance, Learner, ObjectiveTerm, TeacherCacheRecipe } from "./recipe.ts";
import { courseAt } from "./schedule.ts";
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

/** A loss of the objective, of any level. */
export type ResolvedTerm = ResolvedLoss | ResolvedFeature;

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
          size: (rows) => kernel.size(rows, (name) => graph.scalar(name)),
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

/** A loss as it is measured on held-out samples. */
function heldOutTerm(term: ResolvedLoss): ResolvedLoss {
  const controller = controllerOf(term);
  return controller ? { ...term, options: { ...term.options, ...controller.heldOut(term.options) } } : term;
}

/** What the controller of a loss measures in training steps. */
function measures({ name, tokenMask, ...term }: ResolvedLoss): ResolvedLoss[] {
  return (controllerOf({ name, ...term })?.measures ?? []).map((loss) => ({
    ...{ loss, options: {}, name: measureName(name, loss.id), tokenMask: tokenMask ?? 0 },
    ...{ weight: 0, temperature: 1, monitor: true },
  }));
}

/** What a loss wants measured beside it. */
function companions(term: ResolvedLoss): ResolvedLoss[] {
  return (term.loss.monitors ?? []).map((loss) => ({ ...term, loss, name: `${term.name} ${loss.id}` }));
}

/** Looks a loss up; checks its options, at both ends of what is scheduled. */
function resolve(registry: Registry, term: ObjectiveTerm, name: string, where: string): ResolvedTerm {
  const loss = registry.get("loss", term.loss);
  const isFeature = loss.kind === "feature-loss";
  if (isFeature) checkFeatureTerm(term, where);
  const schedule = Object.entries(term.schedule ?? {});
  const known = isFeature ? ["weight"] : ["weight", "temperature", ...(loss.scheduled ?? [])];
  for (const [what, course] of schedule) {
    const place = `recipe ${where}.schedule.${what}`;
    if (!known.includes(what)) {
      throw new InputError(`"${what}" of "${term.loss}" cannot change from step to step`, {
        where: place,
        hint: `these can: ${known.join(", ")}`,
      });
    }
    for (const end of [course.from, course.to]) {
      if (what === "weight" && end < 0) {
        throw new InputError(`a weight must be at least 0, not ${end}`, { where: place });
      } else if (what === "temperature" && end <= 0) {
        throw new InputError(`a temperature must be above 0, not ${end}`, { where: place });
      } else if (what !== "weight" && what !== "temperature") {
        registry.options(loss, { ...term.options, [what]: end }, `${where}.options`);
      }
    }
  }
  const options = registry.options(loss, term.options, `${where}.options`);
  const resolved = { options, name, weight: term.weight, temperature: term.temperature };
  if (isFeature) {
    const { balance } = term;
    return termAt({ ...resolved, loss, where: `recipe ${where}`, ...(balance ? { balance } : {}) }, term, 0);
  }
  const overRows = { ...resolved, loss, ...(term.schedule?.temperature ? { temperatureVaries: true } : {}) };
  for (const name of controllerOf(overRows)?.sets ?? []) {
    if (term.schedule?.[name] === undefined) continue;
    throw new InputError(
      `"${name}" of "${term.loss}" has a schedule, and options that set it by what the loss does`,
      {
        where: `recipe ${where}.schedule.${name}`,
        hint: "Leave out one of the two.",
      },
    );
  }
  if (term.tokens === "unshifted" && [overRows, ...measures(overRows)].some(looksAtLabel)) {
    throw new InputError(
      `"${term.loss}" looks at the next token, which the last of the unshifted tokens lacks`,
      {
        where: `recipe ${where}.tokens`,
        hint: "Take supervised or all, or a loss that compares the two models alone, such as forward-kl.",
      },
    );
  }
  return termAt(overRows, term, 0);
}

/** A loss as it is at a step: from the recipe alone. */
function termAt<T extends ResolvedTerm>(resolved: T, term: ObjectiveTerm, step: number): T {
  const { weight: weightCourse, temperature: temperatureCourse, ...courses } = term.schedule ?? {};
  const temperature = temperatureCourse ? courseAt(step, temperatureCourse) : term.temperature;
  const weight = weightCourse ? courseAt(step, weightCourse) : term.weight;
  const options = { ...resolved.options };
  for (const [name, course] of Object.entries(courses)) options[name] = courseAt(step, course);
  return {
    ...resolved,
    ...{ temperature, options },
    weight: term.squareTemperature ? weight * temperature ** 2 : weight,
  };
}

/** What tells a loss from the one of the same name at temperature 1 over the supervised tokens; empty where nothing does. */
function measuredHow({ temperature, tokenMask = 0 }: ResolvedLoss, masks: TokenMasks): string {
  return (temperature === 1 ? "" : ` at ${temperature}`) + masks.description(tokenMask);
}

function lossSet(terms: readonly ResolvedLoss[], shape: RowLossShape): LossSet {
  const { needsTeacher, needsCache } = compileRowLoss(terms, shape, DEFAULT_ADAPTER);
  return { terms, names: terms.map((t) => t.name), needsTarget: needsTeacher, needsCache };
}

/** What a cache keeps for these losses. Held-out losses are measured at temperature 1 too. */
function sparseTarget(
  cache: TeacherCacheRecipe,
  terms: readonly ResolvedLoss[],
  vocabulary: number,
): SparseTarget {
  const { topK, samples } = cache;
  if (topK === undefined) return { kind: "samples", entries: samples!, temperatures: [] };
  if (topK > vocabulary) {
    throw new InputError(`is ${topK}, but the vocabulary has ${vocabulary} tokens`, {
      where: "recipe teacher.cache.topK",
      hint: `set it to at most ${vocabulary}`,
    });
  }
  const own = terms.filter(({ loss, options }) => looksAtTarget(loss, options)).map((t) => t.temperature);
  const temperatures = [...new Set([1, ...own])].sort((a, b) => a - b);
  return { kind: "top-k", entries: topK, temperatures };
}

/** @throws {InputError} if a loss cannot be had with a cached teacher */
function ensureCached(term: ResolvedTerm, target: SparseTarget, where: string): void {
  const refuse = (path: string, message: string, hint: string): never => {
    throw new InputError(`with teacher.cache, "${term.loss.id}" ${message}`, { where: path, hint });
  };
  const instead = "choose another loss, or leave teacher.cache out";
  if (!isRowTerm(term)) {
    return refuse(where, "cannot be had: a cache holds logits, no inner values of the teacher", instead);
  }
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

/** Whether a loss is one over rows of logits. */
function isRowTerm(term: ResolvedTerm): term is ResolvedLoss {
  return term.loss.kind !== "feature-loss";
}

function learnerOf({ learner = "student" }: Pick<ObjectiveTerm, "learner">): Learner {
  return learner;
}

/** Keys of the losses: their ids, with the learner before them where it is the teacher; of a loss that is used twice with its place. */
function uniqueNames(recipe: readonly ObjectiveTerm[]): string[] {
  const names = recipe.map((t) => (learnerOf(t) === "teacher" ? `teacher ${t.loss}` : t.loss));
  return names.map((name, i) =>
    names.filter((other) => other === name).length > 1
      ? `${name} ${names.slice(0, i).filter((other) => other === name).length + 1}`
      : name
  );
}
