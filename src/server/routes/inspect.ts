/**
 * What can be told of a recipe before it is submitted. Nothing is run.
 *
 * @module
 */
import { createRoute, z } from "@hono/zod-openapi";
import { type Recipe } from "../../distill/recipe/recipe.ts";
import { parseRecipe } from "../../distill/recipe/parse.ts";
import { RecipeError } from "../../distill/recipe/parse.ts";
import type { App } from "../http/app_env.ts";
import { json, namedRecipe, otherwise } from "../schemas.ts";
import type { Hide } from "../run_view.ts";
import type { Service } from "../service.ts";
import { checkNamed } from "../submit.ts";

const body = <T extends z.ZodType>(schema: T) => ({
  body: { required: true, content: { "application/json": { schema } } },
});

const whole = z.looseObject({});
const ofRecipe = z.strictObject({ recipe: namedRecipe }).openapi("RecipeToLookAt");

const warnings = z.array(z.looseObject({ code: z.string(), message: z.string() }));

const validate = createRoute({
  method: "post",
  path: "/v1/runs/validate",
  operationId: "validateRecipe",
  summary: "Check a recipe and all that it names",
  tags: ["runs"],
  request: body(ofRecipe),
  responses: {
    200: json(
      z.object({
        valid: z.literal(true),
        recipe: namedRecipe.openapi({ description: "The recipe with all its defaults" }),
        train: whole,
        heldOut: whole,
        trained: whole,
        warnings,
      }).openapi("Validation"),
      "The recipe is valid; what its data hold and what it trains",
    ),
    ...otherwise,
  },
});

const estimate = createRoute({
  method: "post",
  path: "/v1/runs/estimate",
  operationId: "estimateRecipe",
  summary: "Forecast the memory that a recipe needs",
  description:
    "Exact bytes on the GPU. A recipe that does not fit is answered 422, with the numbers and what can be turned.",
  tags: ["runs"],
  request: body(ofRecipe),
  responses: {
    200: json(
      z.looseObject({
        adapter: z.string(),
        totalBytes: z.number().int(),
        bytes: z.record(z.string(), z.number().int()),
        steps: z.number().int(),
        warnings,
      }).openapi("Estimate"),
      "What it needs",
    ),
    ...otherwise,
  },
});

const preview = createRoute({
  method: "post",
  path: "/v1/data/preview",
  operationId: "previewData",
  summary: "Show samples as training sees them",
  description: "Rows as tokens, with what is learnt marked.",
  tags: ["runs"],
  request: body(
    z.strictObject({
      recipe: namedRecipe,
      heldOut: z.boolean().default(false).openapi({
        description: "Held-out samples instead of training samples",
      }),
      samples: z.number().int().min(1).max(20).default(3),
    }).openapi("DataToPreview"),
  ),
  responses: { 200: json(whole.openapi("Preview"), "Samples with their tokens"), ...otherwise },
});

/** Adds the routes. */
export function addInspectionRoutes(app: App, service: Service): void {
  const { inspector, catalogue } = service;
  const plugins = service.plugins.map(({ path }) => path);
  const look = async <T>(named: unknown, use: (recipe: Recipe) => Promise<T>): Promise<T> => {
    const recipe = await checkNamed(service, named);
    try {
      return await use(recipe);
    } catch (error) {
      if (!(error instanceof RecipeError)) throw error;
      const problems = error.problems.map(({ path, message }) => ({ path: `recipe.${path}`, message }));
      throw new RecipeError("recipe", problems);
    }
  };

  app.openapi(validate, async (c) => {
    const { recipe: named } = c.req.valid("json");
    const signal = c.req.raw.signal;
    const found = await look(
      named,
      (recipe) => inspector.inspect({ kind: "validate", recipe }, { plugins, signal }),
    );
    return c.json({ ...hidden(found, await catalogue.hide()), recipe: parseRecipe(named) } as never, 200);
  });

  app.openapi(estimate, async (c) => {
    const { recipe: named } = c.req.valid("json");
    const signal = c.req.raw.signal;
    const found = await look(
      named,
      (recipe) => inspector.inspect({ kind: "estimate", recipe }, { plugins, signal }),
    );
    return c.json(hidden(found, await catalogue.hide()) as never, 200);
  });

  app.openapi(preview, async (c) => {
    const { recipe: named, heldOut, samples } = c.req.valid("json");
    const signal = c.req.raw.signal;
    const found = await look(
      named,
      (recipe) => inspector.inspect({ kind: "preview", recipe, heldOut, samples }, { plugins, signal }),
    );
    return c.json(hidden(found, await catalogue.hide()) as never, 200);
  });
}

/** A value without paths of this machine. What samples say is left as it is. */
function hidden<T>(value: T, hide: Hide): T {
  return JSON.parse(
    JSON.stringify(value),
    (key, part) => typeof part === "string" && key !== "text" ? hide(part) : part,
  );
}
