/**
 * What follows from the teachers that a recipe names.
 *
 * @module
 */
import type { SelfRecipe, TeacherMemberRecipe, TeacherRecipe } from "./recipe.ts";
import { type Course, courseAt } from "./schedule.ts";

/** The teachers that a recipe names; one is a list of itself. */
export function teachersOf(
  { model, quantize, self, tokenizer, teachers }: TeacherRecipe,
): readonly TeacherMemberRecipe[] {
  return teachers ?? [{
    model,
    ...(quantize ? { quantize } : {}),
    ...(self ? { self } : {}),
    ...(tokenizer === undefined ? {} : { tokenizer }),
  }];
}

/** Whether what a student teaches itself changes as it learns. */
export function isMoving(self: SelfRecipe | undefined): boolean {
  return self !== undefined && self.kind !== "initial";
}

/** What of the student follows its training as a teacher, if anything; there is no more than one such teacher. */
export function movingSelf(
  { self, teachers }: Pick<TeacherRecipe, "self" | "teachers">,
): Exclude<SelfRecipe, { kind: "initial" }> | undefined {
  const found = [self, ...(teachers ?? []).map((t) => t.self)].find(isMoving);
  return found as Exclude<SelfRecipe, { kind: "initial" }> | undefined;
}

/** A teacher's weight at a step, counted from 0. */
export function weightAt(
  { weight = 1, schedule }: {
    readonly weight?: number | undefined;
    readonly schedule?: { readonly weight: Course } | undefined;
  },
  step: number,
): number {
  return schedule ? courseAt(step, schedule.weight) : weight;
}

/** How many teachers there are, each of some samples; 0 where samples have no teacher of their own. */
export function teachersBySample(
  { combine, teachers = [] }: Pick<TeacherRecipe, "combine" | "teachers">,
): number {
  return combine === "best" || combine === "tag" ? teachers.length : 0;
}
