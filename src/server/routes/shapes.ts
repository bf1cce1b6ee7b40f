/**
 * The shapes of a run: what each loses against what it costs, and which of them no other beats.
 *
 * @module
 */
import { createRoute, z } from "@hono/zod-openapi";
import { frontierPoints } from "../../runs/report/charts/frontier_points.ts";
import { foundShapes, type RunShapes, trainedShapes } from "../../runs/report/run_shapes.ts";
import type { RunStore, StoredRun } from "../../runs/store/store.ts";
import { isTask } from "../../runs/task/run_recipe.ts";
import type { App } from "../http/app_env.ts";
import { json, otherwise, runId } from "../schemas.ts";
import type { Service } from "../service.ts";
import { find } from "./runs.ts";

const COSTS = ["parameters", "tokensPerSecond"] as const;
const numberOrNull = z.number().nullable();

const shapeSchema = z.object({
  name: z.string().openapi({ example: "depth=4,width=0.75" }),
  layers: z.array(z.number().int()).openapi({ description: "Layers that stay, from 0" }),
  width: z.number().openapi({ description: "Part of the width that stays" }),
  parameters: z.number().int(),
  tokensPerSecond: numberOrNull.openapi({ description: "null where it was not measured" }),
  value: numberOrNull.openapi({ description: "Its figure; null where that is no finite number" }),
  before: numberOrNull.openapi({ description: "Its figure before training; null where there is none" }),
  chosen: z.boolean().openapi({ description: "Whether a search ended with it" }),
  by: z.array(z.string()).openapi({ description: "Searches and rules that give it" }),
  frontier: z.array(z.enum(COSTS)).openapi({
    description:
      "Costs against which no other shape beats it: neither costs nor loses more, and one of the two less",
  }),
}).openapi("Shape");

const shapesSchema = z.object({
  object: z.literal("shapes"),
  figure: z.string().nullable().openapi({
    description: "What shapes are compared by, such as held-out loss; null where the run has none",
  }),
  higherIsBetter: z.boolean(),
  step: z.number().int().nullable().openapi({
    description: "Steps done when they were measured; null where nothing is trained",
  }),
  costs: z.array(z.enum(COSTS)).openapi({ description: "Costs that are known of two shapes at the least" }),
  data: z.array(shapeSchema),
}).openapi("Shapes");

const shapes = createRoute({
  method: "get",
  path: "/v1/runs/{id}/shapes",
  operationId: "readShapes",
  summary: "Read what the shapes of a run lose and cost",
  description:
    "Of a run that trains several shapes, as they were measured last; of one that shrank a model, all that it measured. A run of one shape has none.",
  tags: ["events"],
  request: { params: runId },
  responses: { 200: json(shapesSchema, "Shapes, and which of them are on the frontier"), ...otherwise },
});

/** Adds the route. */
export function addShapeRoutes(app: App, service: Service): void {
  app.openapi(shapes, async (c) => {
    const run = await find(service, c.req.valid("param").id);
    return c.json(shapesView(await shapesOf(service.store, run)), 200);
  });
}

async function shapesOf(store: RunStore, run: StoredRun): Promise<RunShapes | undefined> {
  if (isTask(run.recipe)) return foundShapes(run.recipe, run.result?.findings);
  if (!run.recipe.student.shapes) return undefined;
  return trainedShapes(await store.events(run.id, { types: ["shapes", "rewind"] }));
}

function shapesView(found: RunShapes | undefined): z.output<typeof shapesSchema> {
  const pictures = found ? frontierPoints(found.shapes, found.figure) : [];
  const best = pictures.map((picture) => ({
    cost: picture.cost.field,
    shapes: new Set(picture.best.map(({ shape }) => shape)),
  }));
  return {
    object: "shapes",
    figure: found?.figure.name ?? null,
    higherIsBetter: found?.figure.higherIsBetter ?? false,
    step: found?.step ?? null,
    costs: pictures.map(({ cost }) => cost.field),
    data: (found?.shapes ?? []).map((shape) => ({
      name: shape.name,
      layers: [...shape.layers],
      width: shape.width,
      parameters: shape.parameters,
      tokensPerSecond: shape.tokensPerSecond ?? null,
      value: Number.isFinite(shape.value) ? shape.value : null,
      before: shape.before ?? null,
      chosen: shape.chosen ?? false,
      by: [...shape.by ?? []],
      frontier: best.filter((of) => of.shapes.has(shape)).map(({ cost }) => cost),
    })),
  };
}
