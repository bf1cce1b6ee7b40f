/**
 * The plain fine-tuning twin of a recipe: the same student, data, steps and seeds, and no teacher to learn from. What distilling gives is
 * what it gives beyond that.
 *
 * @module
 */
import type { Recipe } from "../../distill/recipe/recipe.ts";

/** A recipe of a comparison. */
interface NamedRecipe {
  readonly name: string;
  readonly file: string;
  readonly recipe: Recipe;
}

const NAME = "fine-tuning";

/** Whether a recipe learns by the next token alone. */
function isFineTuning({ objective }: Pick<Recipe, "objective">): boolean {
  return objective.every(({ loss, learner = "student" }) =>
    loss === "cross-entropy" && learner === "student"
  );
}

/**
 * The twin of the first recipe.
 *
 * @returns undefined where a recipe is plain fine-tuning already, or the first one trains several shapes, which learn by each other
 */
export function fineTuningTwin(recipes: readonly NamedRecipe[]): NamedRecipe | undefined {
  const [{ recipe, file }] = recipes as [NamedRecipe];
  if (recipe.student.shapes || recipes.some(({ recipe }) => isFineTuning(recipe))) return undefined;
  const { train: _train, adapter: _adapter, ...teacher } = recipe.teacher;
  const taken = recipes.map(({ name }) => name);
  let name = NAME;
  for (let i = 2; taken.includes(name); i++) name = `${NAME}-${i}`;
  return {
    name,
    file,
    recipe: {
      ...recipe,
      // It still says how far the student is from the teacher.
      teacher: { ...teacher, train: false },
      objective: [{ loss: "cross-entropy", weight: 1, temperature: 1, options: {} }],
    },
  };
}
