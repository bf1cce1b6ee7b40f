/**
 * What follows from the teachers that a recipe names.
 *
 * @module
 */
import type {
  Recipe,
  SelfRecipe,
  ServedTeacherRecipe,
  TeacherCacheRecipe,
  TeacherMemberRecipe,
  TeacherRecipe,
} from "./recipe.ts";
import { type Course, courseAt } from "./schedule.ts";

/** Stands for the model of a teacher where a server has it. */
export const SERVED = "server";

/** The teachers that a recipe names; one is a list of itself. */
export function teachersOf(
  { model, server, quantize, self, tokenizer, teachers }: TeacherRecipe,
): readonly TeacherMemberRecipe[] {
  return teachers ?? [{
    model,
    ...(server ? { server } : {}),
    ...(quantize ? { quantize } : {}),
    ...(self ? { self } : {}),
    ...(tokenizer === undefined ? {} : { tokenizer }),
  }];
}

/** What is kept of the teacher of a number, of several as each of them or all say; undefined where it is there while the student learns. */
export function cacheOf(
  { cache, teachers }: Pick<TeacherRecipe, "cache" | "teachers">,
  i: number,
): TeacherCacheRecipe | undefined {
  return teachers?.[i]?.cache ?? cache;
}

/** What is kept of teachers, of each of which something is. */
export function cachesOf(teacher: TeacherRecipe): TeacherCacheRecipe[] {
  return teachersOf(teacher).flatMap((_, i) => cacheOf(teacher, i) ?? []);
}

/** The field of a recipe that says what is kept of the teacher of a number. */
export function cacheField({ teachers }: Pick<TeacherRecipe, "teachers">, i: number): string {
  return teachers?.[i]?.cache ? `teacher.teachers.${i}.cache` : "teacher.cache";
}

/** Whether a cache keeps a part of the teacher's distribution, not what makes every logit. */
export function keepsPart(cache: TeacherCacheRecipe | undefined): boolean {
  return cache !== undefined && cache.payload !== "hidden";
}

/** A teacher behind a server. */
export interface ServedTeacher {
  /** Its number in the recipe. */
  readonly index: number;
  /** What it is called; absent where it is the only teacher. */
  readonly name?: string;
  readonly server: ServedTeacherRecipe;
  /** The field of the recipe that says where it is served. */
  readonly field: string;
}

/** The teachers of a recipe that are behind servers. */
export function servedTeachers(teacher: TeacherRecipe): ServedTeacher[] {
  return teachersOf(teacher).flatMap(({ server, name }, index): ServedTeacher[] =>
    server
      ? [{
        ...{ index, server, field: teacher.teachers ? `teacher.teachers.${index}.server` : "teacher.server" },
        ...(name === undefined ? {} : { name }),
      }]
      : []
  );
}

/** The numbers of the teachers that are run over the data before training, to keep something of them. */
export function passesOf(teacher: TeacherRecipe): number[] {
  return teachersOf(teacher).flatMap(({ server }, i) => (cacheOf(teacher, i) && !server ? [i] : []));
}

/** A recipe as if the teacher of a number were the only one: what is asked, stored and known of each is as of one. */
export function recipeOfTeacher(recipe: Recipe, i: number): Recipe {
  const { teacher } = recipe;
  const member = teacher.teachers?.[i];
  if (!member) return recipe;
  const { model, server, quantize, self, tokenizer } = member;
  const cache = cacheOf(teacher, i);
  return {
    ...recipe,
    teacher: {
      ...{ model, train: false },
      ...(server ? { server } : {}),
      ...(quantize ? { quantize } : {}),
      ...(self ? { self } : {}),
      ...(tokenizer === undefined ? {} : { tokenizer }),
      ...(cache ? { cache } : {}),
      ...(teacher.stream === undefined ? {} : { stream: teacher.stream }),
    },
  };
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
