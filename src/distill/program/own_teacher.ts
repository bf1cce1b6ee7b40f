/**
 * The student as its own teacher: which of it follows what is trained, and how fast.
 *
 * @module
 */
import type { TeacherRecipe } from "../recipe/recipe.ts";
import { movingSelf } from "../recipe/teachers.ts";

/**
 * What the copy of the student's parameters keeps of itself at the end of a step; the rest are the parameters after the step. An
 * exponential mean keeps its decay (mean teachers, Tarvainen and Valpola, arXiv 1703.01780); a copy some steps back keeps all, but
 * every so many steps nothing.
 *
 * @param step Steps done before it, from 0
 */
export function copyKeeps(step: number, teacher: Pick<TeacherRecipe, "self" | "teachers">): number {
  const self = movingSelf(teacher);
  if (!self) return 1;
  if (self.kind === "mean") return self.decay;
  return (step + 1) % self.every === 0 ? 0 : 1;
}
