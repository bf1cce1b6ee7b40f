/**
 * The models of a recipe: its teachers and its student, one object where they are the same.
 *
 * @module
 */
import type { ModelFamily } from "../../models/family.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { Model } from "./models.ts";
import { openServedHead } from "./served_teacher.ts";
import { recipeOfTeacher, teachersOf } from "../recipe/teachers.ts";

/** Open models. */
export interface OpenModels {
  readonly student: Model;
  /** In the recipe's order; the student itself where it teaches, or where no more is here of one behind a server than its answers. */
  readonly teachers: readonly Model[];
}

/**
 * Opens them. Teachers of one file and one quantisation share what they have on the GPU.
 *
 * @param openStudent Called once all other models are open
 * @throws {InputError} on a model that does not do; what was opened is closed again
 */
export async function openModels(
  recipe: Recipe,
  openStudent: () => Promise<Model>,
  families: readonly ModelFamily[] = [],
): Promise<OpenModels> {
  const open: (Model | undefined)[] = [];
  try {
    for (const [i, { model, server, layers, quantize, tokenizer }] of teachersOf(recipe.teacher).entries()) {
      // Of a teacher behind a server nothing but its head is ever here: else what is planned of it has the student's sizes.
      if (server) open.push(await openServedHead(recipeOfTeacher(recipe, i).teacher));
      else {
        const options = { category: "teacher weights", layers, quantize, tokenizer };
        open.push(model === "student" ? undefined : await Model.open(model, options, families));
      }
    }
    const student = await openStudent();
    return { student, teachers: open.map((model) => model ?? student) };
  } catch (error) {
    for (const model of open) model?.close();
    throw error;
  }
}

/** Closes models, each once. */
export function closeModels({ student, teachers }: OpenModels): void {
  for (const source of new Set([...teachers, student].map((model) => model.source))) source.close();
}

/** The same models of which only so many rows of embedding and head take part; what was one object is one. */
export function withRows({ student, teachers }: OpenModels, rows: number): OpenModels {
  const cut = new Map([...teachers, student].map((model) => [model, model.withRows(rows)]));
  return { student: cut.get(student)!, teachers: teachers.map((model) => cut.get(model)!) };
}
