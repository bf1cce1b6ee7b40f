/**
 * What of a teacher behind a server can be known without asking it.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { computedIdentity, modelIdentity, sha256 } from "../inputs/identity.ts";
import type { PreparedRun } from "../inputs/prepare.ts";
import { servedIdentity } from "../inputs/served_teacher.ts";
import type { Objective } from "../objective/objective.ts";
import { isRowTerm } from "../objective/terms.ts";
import { looksAtTarget } from "../../losses/sparse_target.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { cacheOf, keepsPart, servedTeachers } from "../recipe/teachers.ts";

/** What a cache of the teacher, of several of that which the run is prepared for, is known by: of a served one its address and name, since nobody can look at its weights. */
export async function teacherIdentity({ recipe, teacher }: PreparedRun): Promise<string> {
  if (!recipe.teacher.server) return await computedIdentity(teacher);
  const served = servedIdentity(recipe.teacher);
  // Where its head is here, that is known of it too.
  return recipe.teacher.cache?.payload === "hidden"
    ? sha256(`${served} with the head ${await modelIdentity(teacher)}`)
    : served;
}

/** @throws {InputError} on a loss that asks a server for another temperature than 1 */
export function checkServedObjective({ teacher }: Recipe, { terms }: Objective): void {
  // Of hidden states every temperature can be had.
  if (!servedTeachers(teacher).some(({ index }) => keepsPart(cacheOf(teacher, index)))) return;
  for (const [i, term] of terms.entries()) {
    if (!isRowTerm(term) || term.temperature === 1 || !looksAtTarget(term.loss, term.options)) continue;
    throw new InputError(
      `"${term.loss.id}" must have temperature 1, not ${term.temperature}: a server tells its log-probabilities at 1, and what is left of ` +
        "them at another temperature cannot be known",
      {
        where: `recipe objective.${i}.temperature`,
        hint: "set it to 1, or take a teacher whose weights are here",
      },
    );
  }
}

/** @throws {InputError} what a server was to be asked for is not there: whoever starts a run asks before */
export function missingAnswers(path: string, samples: number): InputError {
  return new InputError(`lacks what the server says of ${samples} samples`, {
    where: path,
    hint:
      "Run the recipe again, or `limbeck cache RECIPE`: the server is asked for them, and what is there is kept.",
  });
}
