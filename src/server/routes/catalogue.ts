/**
 * What a recipe may name: plugins, models and data.
 *
 * @module
 */
import { createRoute, z } from "@hono/zod-openapi";
import { oneOf } from "../../base/did_you_mean.ts";
import { KINDS } from "../../registry/kinds/mod.ts";
import { describePlugin } from "../../registry/plugin_description.ts";
import type { StoredRun } from "../../runs/store/store.ts";
import { RUN_PREFIX } from "../catalogue.ts";
import type { App } from "../http/app_env.ts";
import { HttpError } from "../http/http_error.ts";
import type { Hide } from "../run_view.ts";
import { json, otherwise } from "../schemas.ts";
import type { Service } from "../service.ts";

const pluginSchema = z.object({
  id: z.string(),
  object: z.literal("plugin"),
  kind: z.string().openapi({ description: oneOf(KINDS.map(({ id }) => id)) }),
  role: z.string().nullable().openapi({ description: "What a recipe names it as: loss or adapter" }),
  version: z.string(),
  contract: z.number().int(),
  description: z.string().nullable(),
  source: z.string().nullable(),
  options: z.record(z.string(), z.unknown()).nullable().openapi({
    description: "JSON Schema of the options",
  }),
  scheduled: z.array(z.string()).openapi({ description: "Options that a schedule may change" }),
}).openapi("Plugin");

const plugins = createRoute({
  method: "get",
  path: "/v1/plugins",
  operationId: "listPlugins",
  summary: "List losses and adapters with the schemas of their options",
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

const model = createRoute({
  method: "get",
  path: "/v1/models/{id}",
  operationId: "getModel",
  summary: "Show a model",
  tags: ["catalogue"],
  request: { params: z.object({ id: z.string().min(1).max(256) }) },
  responses: { 200: json(modelSchema, "The model"), ...otherwise },
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

  type Model = z.output<typeof modelSchema>;

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

  const modelOf = (run: StoredRun, hide: Hide): Model => ({
    id: `run:${run.id}`,
    object: "model",
    created: seconds(run.finishedAt ?? run.manifest.createdAt),
    owned_by: run.owner || "limbeck",
    source: "run",
    run: run.id,
    base: baseName(run.named) ?? hide(run.recipe.teacher.model),
  });

  app.openapi(plugins, (c) => {
    const data = registry.list().map((plugin) => ({ object: "plugin" as const, ...describePlugin(plugin) }));
    return c.json({ object: "list" as const, data }, 200);
  });

  app.openapi(models, async (c) => {
    const { data: runs } = await store.list({ states: ["succeeded"], limit: MOST_RUNS });
    const hide = await catalogue.hide();
    const data = [...await namedModels(), ...runs.map((run) => modelOf(run, hide))];
    return c.json({ object: "list" as const, data }, 200);
  });

  app.openapi(model, async (c) => {
    const { id } = c.req.valid("param");
    const run = id.startsWith(RUN_PREFIX) ? await store.get(id.slice(RUN_PREFIX.length)) : undefined;
    const found = run?.state === "succeeded"
      ? modelOf(run, await catalogue.hide())
      : (await namedModels()).find((model) => model.id === id);
    if (!found) {
      throw new HttpError(404, `there is no model "${id}"; GET /v1/models lists them`, {
        code: "unknown_model",
      });
    }
    return c.json(found, 200);
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
