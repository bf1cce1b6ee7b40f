/**
 * Writes `recipe.schema.json` at the root of the project: `deno task schema`.
 *
 * @module
 */
import { recipeJsonSchema } from "../distill/recipe/problems.ts";

const target = new URL("../../recipe.schema.json", import.meta.url);
await Deno.writeTextFile(target, JSON.stringify(recipeJsonSchema(), null, 2) + "\n");
