/**
 * The terms of an objective: each loss looked up, its options and courses checked, and as it is at a step.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { Registry } from "../../registry/registry.ts";
import { type ResolvedLoss } from "../../losses/traced.ts";
import type { ResolvedGroupLoss } from "../../losses/compile_group.ts";
import { looksAtLabel } from "../../losses/compile.ts";
import { controllerOf, measureName } from "./controllers.ts";
import { checkFeatureTerm, type ResolvedFeature } from "./feature_losses.ts";
import type { Learner, ObjectiveTerm } from "../recipe/recipe.ts";
import { courseAt } from "../recipe/schedule.ts";

/** A loss of the objective, of any level. */
export type ResolvedTerm = ResolvedLoss | ResolvedFeature | ResolvedGroupLoss;

/** Whether a loss is one over rows of logits. */
export function isRowTerm(term: ResolvedTerm): term is ResolvedLoss {
  return term.loss.kind !== "feature-loss" && term.loss.kind !== "group-loss";
}

/** Whether a loss is one over groups of tokens of two tokenisations. */
export function isGroupTerm(term: ResolvedTerm): term is ResolvedGroupLoss {
  return term.loss.kind === "group-loss";
}

/** The model that a term trains. */
export function learnerOf({ learner = "student" }: Pick<ObjectiveTerm, "learner">): Learner {
  return learner;
}

/** Keys of the losses: their ids, with the learner before them where it is the teacher; of a loss that is used twice with its place. */
export function uniqueNames(recipe: readonly ObjectiveTerm[]): string[] {
  const names = recipe.map((t) => (learnerOf(t) === "teacher" ? `teacher ${t.loss}` : t.loss));
  return names.map((name, i) =>
    names.filter((other) => other === name).length > 1
      ? `${name} ${names.slice(0, i).filter((other) => other === name).length + 1}`
      : name
  );
}

/** A loss as it is measured on held-out samples. */
export function heldOutTerm(term: ResolvedLoss): ResolvedLoss {
  const controller = controllerOf(term);
  return controller ? { ...term, options: { ...term.options, ...controller.heldOut(term.options) } } : term;
}

/** What the controller of a loss measures in training steps. */
export function measures({ name, tokenMask, ...term }: ResolvedLoss): ResolvedLoss[] {
  return (controllerOf({ name, ...term })?.measures ?? []).map((loss) => ({
    ...{ loss, options: {}, name: measureName(name, loss.id), tokenMask: tokenMask ?? 0 },
    ...{ weight: 0, temperature: 1, monitor: true },
  }));
}

/** What a loss wants measured beside it. */
export function companions(term: ResolvedLoss): ResolvedLoss[] {
  return (term.loss.monitors ?? []).map((loss) => ({ ...term, loss, name: `${term.name} ${loss.id}` }));
}

/** Looks a loss up; checks its options, at both ends of what is scheduled. */
export function resolve(registry: Registry, term: ObjectiveTerm, name: string, where: string): ResolvedTerm {
  const loss = registry.get("loss", term.loss);
  const isFeature = loss.kind === "feature-loss";
  if (isFeature) checkFeatureTerm(term, where);
  if (loss.kind === "group-loss") checkGroupTerm(term, where);
  if (loss.kind === "divergence" && loss.pairs) checkPairTerm(term, where);
  const schedule = Object.entries(term.schedule ?? {});
  const scheduled = "scheduled" in loss ? loss.scheduled ?? [] : [];
  const known = isFeature ? ["weight"] : ["weight", "temperature", ...scheduled];
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
  if (loss.kind === "group-loss") return termAt({ ...resolved, loss }, term, 0);
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

/** A loss over groups counts those whose tokens are supervised on both sides. @throws {InputError} on what it cannot have */
function checkGroupTerm(term: ObjectiveTerm, where: string): void {
  const given = [
    ["learner", learnerOf(term) === "teacher"],
    ["tokens", (term.tokens ?? "supervised") !== "supervised"],
    ["source", term.source !== undefined],
    ["balance", term.balance !== undefined],
  ] as const;
  for (const [field, isGiven] of given) {
    if (!isGiven) continue;
    throw new InputError(`"${term.loss}" compares groups of supervised tokens, and cannot have ${field}`, {
      where: `recipe ${where}.${field}`,
      hint: "Leave it out.",
    });
  }
}

/** Refuses what a loss over pairs of texts cannot have. */
function checkPairTerm(term: ObjectiveTerm, where: string): void {
  const given = (["tokens", "source", "balance", "learner"] as const).find((name) =>
    term[name] !== undefined
  );
  if (given === undefined) return;
  throw new InputError(`"${term.loss}" compares pairs of texts, whole, for the student`, {
    where: `recipe ${where}.${given}`,
    hint: `Leave ${given} out.`,
  });
}

/** A loss as it is at a step: from the recipe alone. */
export function termAt<T extends ResolvedTerm>(resolved: T, term: ObjectiveTerm, step: number): T {
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
