/**
 * What is wrong with a faulty recipe, in sentences.
 *
 * @module
 */
import { z } from "zod";
import { describeIssues, type FieldSchema, type SchemaProblem } from "../../base/schema_problems.ts";
import { recipeSchema } from "./schema/mod.ts";

/** One broken rule of a recipe. */
export type RecipeProblem = SchemaProblem;

let cachedSchema: FieldSchema | undefined;

/** JSON Schema of a recipe as one writes it. `$schema` is allowed, since editors look for it in JSON files. */
export function recipeJsonSchema(): Record<string, unknown> {
  const schema = z.toJSONSchema(recipeSchema, { io: "input" }) as Record<string, unknown> & FieldSchema;
  schema.title = "Limbeck recipe";
  // Where there are several teachers, the first one's stands for it.
  delete (schema.properties as Record<string, { required?: string[] }>).teacher!.required;
  return schema;
}

/** One entry for each broken rule, in the order of the recipe. `value` is the recipe as written. */
export function describeProblems(issues: readonly z.core.$ZodIssue[], value: unknown): RecipeProblem[] {
  cachedSchema ??= recipeJsonSchema() as FieldSchema;
  return describeIssues(issues, value, cachedSchema);
}
