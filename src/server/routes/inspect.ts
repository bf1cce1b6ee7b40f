/**
 * What can be told of a recipe before it is submitted. Nothing is run.
 *
 * @module
 */
import { createRoute, z } from "@hono/zod-openapi";
import { parseRecipe, RecipeError } from "../../distill/recipe/parse.ts";
import type { InspectionOrder } from "../../runs/child/inspection.ts";
import { absentModels } from "../../runs/task/hub_models.ts";
import { isTask, parseRunRecipe } from "../../runs/task/run_recipe.ts";
import { TASKS } from "../../runs/task/task.ts";
import type { Context } from "hono";
import type { App, AppEnv } from "../http/app_env.ts";
import { json, namedRecipe, namedRunRecipe, otherwise } from "../schemas.ts";
import type { Hide } from "../run_view.ts";
import type { Service } from "../service.ts";
import { checkNamed, inRecipe } from "../submit.ts";

const whole = z.looseObject({});
const ofRecipe = z.strictObject({ recipe: namedRunRecipe }).openapi("RecipeToLookAt");

const warnings = z.array(z.looseObject({ code: z.string(), message: z.string() }));

const validationSchema = z.object({
  valid: z.literal(true),
  recipe: namedRecipe.openapi({ description: "The recipe with all its defaults" }),
  train: whole,
  heldOut: whole,
  trainSets: z.array(whole).optional(),
  heldOutSets: z.array(whole).optional(),
  trained: whole,
  alignment: z.string().optional().openapi({
    description:
      "Of a teacher with a tokenizer of its own: how its tokens and the student's stand for the same texts",
  }),
  privileged: z.string().optional().openapi({
    description: "Of a teacher that is told more than the student: how much",
  }),
  warnings,
}).openapi("Validation");

const outputSchema = z.object({
  kind: z.enum(["model", "adapter"]),
  dtype: z.string(),
  parameters: z.number().int(),
  bytes: z.number().int().openapi({ description: "Of its weights on the disk" }),
});

/** What is told of a task beside what its kind adds. */
const ofTask = {
  task: z.enum(TASKS as [string, ...string[]]),
  output: outputSchema.optional().openapi({
    description: "What it will leave; absent where that is known once something is measured",
  }),
  model: whole.optional().openapi({ description: "The model that is shrunk" }),
  data: whole.optional(),
  evaluations: z.number().int().optional().openapi({ description: "Subsets of layers measured at most" }),
  warnings,
};

const taskValidationSchema = z.object({
  valid: z.literal(true),
  recipe: namedRunRecipe.openapi({ description: "The task with all its defaults" }),
  ...ofTask,
}).openapi("TaskValidation");

const taskEstimateSchema = z.object({
  adapter: z.string().nullable().openapi({ description: "null where the processor works alone" }),
  totalBytes: z.number().int(),
  bytes: z.record(z.string(), z.number().int()),
  steps: z.number().int(),
  ...ofTask,
}).openapi("TaskEstimate");

const estimateSchema = z.looseObject({
  adapter: z.string(),
  totalBytes: z.number().int(),
  bytes: z.record(z.string(), z.number().int()),
  steps: z.number().int(),
  warnings,
}).openapi("Estimate");

const previewSchema = whole.openapi("Preview");

const body = <T extends z.ZodType>(schema: T) => ({
  body: { required: true, content: { "application/json": { schema } } },
});

const validate = createRoute({
  method: "post",
  path: "/v1/runs/validate",
  operationId: "validateRecipe",
  summary: "Check a recipe or a task, and all that it names",
  tags: ["runs"],
  request: body(ofRecipe),
  responses: {
    200: json(
      z.union([validationSchema, taskValidationSchema]),
      "The recipe is valid; what its data hold and what it trains. Of a task, what it will leave",
    ),
    ...otherwise,
  },
});

const estimate = createRoute({
  method: "post",
  path: "/v1/runs/estimate",
  operationId: "estimateRecipe",
  summary: "Forecast the memory that a recipe or a task needs",
  description:
    "Exact bytes on the GPU, and of a task those that it writes. A recipe that does not fit is answered 422, with the numbers and what can be turned.",
  tags: ["runs"],
  request: body(ofRecipe),
  responses: { 200: json(z.union([estimateSchema, taskEstimateSchema]), "What it needs"), ...otherwise },
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
  responses: { 200: json(previewSchema, "Samples with their tokens"), ...otherwise },
});

/** Adds the routes. */
export function addInspectionRoutes(app: App, service: Service): void {
  const { inspector, catalogue } = service;
  const plugins = service.plugins.map(({ path }) => path);

  /** Looks at something in a process that ends with its request; the answer is in the shape of `schema`. */
  const look = async <T extends z.ZodType>(
    { req }: Context<AppEnv>,
    order: InspectionOrder,
    schema: T,
  ): Promise<z.output<T>> => {
    const absent = [...(await absentModels(order.recipe)).keys()];
    if (absent.length > 0) {
      throw new RecipeError(
        "recipe",
        absent.map((field) => ({
          path: `recipe.${field}`,
          message: "is fetched from the hub when a run of it begins; before that nothing can be told of it",
        })),
      );
    }
    const found = await inRecipe(() => inspector.inspect(order, { plugins, signal: req.raw.signal }));
    return schema.parse(hidden(found, catalogue.hide));
  };

  app.openapi(validate, async (c) => {
    const { recipe: named } = c.req.valid("json");
    const recipe = await checkNamed(service, named);
    if (isTask(recipe)) {
      const task = taskValidationSchema.omit({ recipe: true });
      return c.json({
        ...await look(c, { kind: "validate-task", recipe }, task),
        recipe: { ...parseRunRecipe(named) },
      }, 200);
    }
    const found = await look(c, { kind: "validate", recipe }, validationSchema);
    return c.json({ ...found, recipe: { ...parseRecipe(named) } }, 200);
  });

  app.openapi(estimate, async (c) => {
    const recipe = await checkNamed(service, c.req.valid("json").recipe);
    return c.json(
      isTask(recipe)
        ? await look(c, { kind: "estimate-task", recipe }, taskEstimateSchema)
        : await look(c, { kind: "estimate", recipe, kept: await service.tuned() }, estimateSchema),
      200,
    );
  });

  app.openapi(preview, async (c) => {
    const { recipe: named, ...settings } = c.req.valid("json");
    const recipe = await checkNamed(service, named);
    if (isTask(recipe)) {
      throw new RecipeError("recipe", [{
        path: "recipe.task",
        message: "only recipes that distil have samples that training sees",
      }]);
    }
    return c.json(await look(c, { kind: "preview", recipe, ...settings }, previewSchema), 200);
  });
}

/** A value as JSON, without paths of this machine. What samples say is left as it is. */
function hidden(value: unknown, hide: Hide): unknown {
  return JSON.parse(
    JSON.stringify(value),
    (key, part) => typeof part === "string" && key !== "text" ? hide(part) : part,
  );
}
