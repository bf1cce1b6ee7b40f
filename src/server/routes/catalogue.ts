/**
 * What a recipe may name: plugins, models and data.
 *
 * @module
 */
import { createRoute, z } from "@hono/zod-openapi";
import { oneOf } from "../../base/did_you_mean.ts";
import { KINDS } from "../../registry/kinds/mod.ts";
import { describePlugin } from "../../registry/plugin_description.ts";
import type { StoredCheckpoint, StoredRun } from "../../runs/store/store.ts";
import { isTask } from "../../runs/task/run_recipe.ts";
import type { App } from "../http/app_env.ts";
import { HttpError } from "../http/http_error.ts";
import { keptCheckpoints, parseRunModel, runModelName } from "../run_model.ts";
import { json, otherwise } from "../schemas.ts";
import type { Service } from "../service.ts";
import { find, mustControl } from "./runs.ts";

const ROLES = [...new Set(KINDS.map(({ role }) => role))];

const pluginSchema = z.object({
  id: z.string(),
  object: z.literal("plugin"),
  kind: z.string().openapi({ description: oneOf(KINDS.map(({ id }) => id)) }),
  role: z.string().nullable().openapi({ description: `What a recipe names it as: ${oneOf(ROLES)}` }),
  version: z.string(),
  contract: z.number().int(),
  description: z.string().nullable(),
  source: z.string().nullable(),
  options: z.record(z.string(), z.unknown()).nullable().openapi({
    description: "JSON Schema of the options",
  }),
  scheduled: z.array(z.string()).openapi({ description: "Options that a schedule may change" }),
  furtherOptions: z.record(
    z.string(),
    z.object({ about: z.string(), schema: z.record(z.string(), z.unknown()).nullable() }),
  ).openapi({ description: "Options of something else, such as of each parent of a merge, by field" }),
}).openapi("Plugin");

const plugins = createRoute({
  method: "get",
  path: "/v1/plugins",
  operationId: "listPlugins",
  summary: "List losses, adapters, merges and families with the schemas of their options",
  tags: ["catalogue"],
  responses: {
    200: json(z.object({ object: z.literal("list"), data: z.array(pluginSchema) }), "Plugins by kind and id"),
    ...otherwise,
  },
});

const modelSchema = z.object({
  id: z.string(),
  object: z.literal("model"),
  created: z.number().int().openapi({ description: "Unix time, seconds" }),
  owned_by: z.string(),
  source: z.enum(["operator", "example", "run"]),
  run: z.string().nullable().openapi({ description: "The run that made it" }),
  base: z.string().nullable().openapi({ description: "What it was distilled from" }),
}).openapi("Model");

type Model = z.output<typeof modelSchema>;

const models = createRoute({
  method: "get",
  path: "/v1/models",
  operationId: "listModels",
  summary: "List models that a recipe may name and finished runs that can be tried",
  tags: ["catalogue"],
  responses: {
    200: json(z.object({ object: z.literal("list"), data: z.array(modelSchema) }), "Models"),
    ...otherwise,
  },
});

const modelId = z.object({ id: z.string().min(1).max(256) });

const model = createRoute({
  method: "get",
  path: "/v1/models/{id}",
  operationId: "getModel",
  summary: "Show a model",
  tags: ["catalogue"],
  request: { params: modelId },
  responses: { 200: json(modelSchema, "The model"), ...otherwise },
});

const remove = createRoute({
  method: "delete",
  path: "/v1/models/{id}",
  operationId: "removeModel",
  summary: "Remove what a run made, and the run with it",
  tags: ["catalogue"],
  request: { params: modelId },
  responses: {
    200: json(
      z.object({ id: z.string(), object: z.literal("model"), deleted: z.literal(true) }),
      "It is gone",
    ),
    ...otherwise,
  },
});

const datasets = createRoute({
  method: "get",
  path: "/v1/datasets",
  operationId: "listDatasets",
  summary: "List datasets that a recipe may name",
  tags: ["catalogue"],
  responses: {
    200: json(
      z.object({
        object: z.literal("list"),
        data: z.array(
          z.object({
            id: z.string(),
            object: z.literal("dataset"),
            createdAt: z.string(),
            source: z.enum(["operator", "example", "upload", "run"]),
          }).openapi("Dataset"),
        ),
      }),
      "Datasets",
    ),
    ...otherwise,
  },
});

/** Finished runs listed among the models. */
const MOST_RUNS = 200;

/** Adds the routes. */
export function addCatalogueRoutes(app: App, service: Service): void {
  const { registry, catalogue, store } = service;

  const namedModels = async (): Promise<Model[]> =>
    (await catalogue.models()).map(({ name, createdAt, source }) => ({
      id: name,
      object: "model" as const,
      created: seconds(createdAt),
      owned_by: source === "example" ? "limbeck" : "operator",
      source: source === "example" ? "example" as const : "operator" as const,
      run: null,
      base: null,
    }));

  /** What a run made, or what it was after a step. */
  const modelOf = (run: StoredRun, checkpoint?: StoredCheckpoint): Model => ({
    id: runModelName(run.id, checkpoint?.step),
    object: "model",
    created: seconds(checkpoint?.time ?? run.finishedAt ?? run.manifest.createdAt),
    owned_by: run.owner || "limbeck",
    source: "run",
    run: run.id,
    base: isTask(run.recipe) ? null : baseName(run.named) ?? catalogue.hide(run.recipe.teacher.model),
  });

  /** Also what no list tells of: checkpoints, and runs that have not come to their end but can be tried. */
  const findModel = async (id: string): Promise<Model> => {
    const name = parseRunModel(id);
    const run = name && await store.get(name.run);
    if (run) {
      const kept = await keptCheckpoints(store, run);
      const checkpoint = kept.find(({ step }) => step === name.step);
      const isThere = name.step === undefined ? run.state === "succeeded" || kept.length > 0 : checkpoint;
      if (isThere) return modelOf(run, checkpoint);
    }
    const found = (await namedModels()).find((model) => model.id === id);
    if (found) return found;
    throw new HttpError(404, `there is no model "${id}"; GET /v1/models lists them`, {
      code: "unknown_model",
    });
  };

  app.openapi(plugins, (c) => {
    const data = registry.list().map((plugin) => ({ object: "plugin" as const, ...describePlugin(plugin) }));
    return c.json({ object: "list" as const, data }, 200);
  });

  app.openapi(models, async (c) => {
    const { data: runs } = await store.list({ states: ["succeeded"], limit: MOST_RUNS });
    const made = runs.filter((run) => !isTask(run.recipe) || run.result?.paths.merged !== undefined);
    const data = [...await namedModels(), ...made.map((run) => modelOf(run))];
    return c.json({ object: "list" as const, data }, 200);
  });

  app.openapi(model, async (c) => c.json(await findModel(c.req.valid("param").id), 200));

  app.openapi(remove, async (c) => {
    const { id } = await findModel(c.req.valid("param").id);
    const name = parseRunModel(id);
    if (!name) {
      throw new HttpError(403, `"${id}" is the operator's, who alone can take it away`, { code: "owner" });
    }
    if (name.step !== undefined) {
      throw new HttpError(400, `a checkpoint goes with its run: remove ${runModelName(name.run)}`, {
        param: "id",
      });
    }
    const run = await find(service, name.run);
    mustControl(c.get("identity")!, run);
    await service.removeRun(run);
    return c.json({ id, object: "model" as const, deleted: true as const }, 200);
  });

  app.openapi(datasets, async (c) => {
    const data = (await catalogue.datasets()).map(({ name, createdAt, source }) => ({
      id: name,
      object: "dataset" as const,
      createdAt,
      source,
    }));
    return c.json({ object: "list" as const, data }, 200);
  });
}

function seconds(time: string): number {
  return Math.floor(Date.parse(time) / 1000);
}

function baseName(named: unknown): string | undefined {
  const teacher = (named as { teacher?: { model?: unknown } } | null)?.teacher?.model;
  return typeof teacher === "string" ? teacher : undefined;
}
