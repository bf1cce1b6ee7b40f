/**
 * Runs: submitting, listing, and asking things of them.
 *
 * @module
 */
import { createRoute, z } from "@hono/zod-openapi";
import { RUN_STATES } from "../../runs/store/run_states.ts";
import type { RunState } from "../../distill/run/events.ts";
import { settle } from "../../runs/store/run_folder.ts";
import { askOfRun } from "../../runs/store/run_actions.ts";
import { RUN_TASKS } from "../../runs/task/run_recipe.ts";
import type { StoredRun } from "../../runs/store/store.ts";
import { UnknownRunError } from "../../runs/store/store_errors.ts";
import type { App } from "../http/app_env.ts";
import { HttpError } from "../http/http_error.ts";
import { idempotencyHeader } from "../idempotency.ts";
import { runView } from "../run_view.ts";
import {
  json,
  metadata,
  namedRunRecipe,
  otherwise,
  pageOf,
  runId,
  runSchema,
  wholeNumberOr,
} from "../schemas.ts";
import type { Service } from "../service.ts";
import { submitRun } from "../submit.ts";
import { type Identity, isAllowed } from "../auth/tokens.ts";

/** What is submitted. */
const submission = z.strictObject({ recipe: namedRunRecipe, metadata: metadata.optional() }).openapi(
  "Submission",
);

const submit = createRoute({
  method: "post",
  path: "/v1/runs",
  operationId: "submitRun",
  summary: "Submit a recipe, or a task",
  description:
    "The run is queued. A recipe with the field `task` merges, adds a residual, cuts, or writes a difference or a shape instead of distilling. What its memory needs is checked when its turn comes; POST /v1/runs/estimate forecasts it.",
  tags: ["runs"],
  request: {
    headers: idempotencyHeader,
    body: { required: true, content: { "application/json": { schema: submission } } },
  },
  responses: {
    202: {
      ...json(runSchema, "The run"),
      headers: z.object({ Location: z.string().openapi({ description: "Where the run is" }) }),
    },
    ...otherwise,
  },
});

/** Entries of metadata in a query, each with a name of its own; {@linkcode metadataFilter} reads them. */
export const metadataQuery = z.string().optional().openapi({
  type: "object",
  additionalProperties: { type: "string" },
  description: "As metadata[name]=value: only runs with that entry; may be given several times",
  param: { style: "deepObject", explode: true },
});

const list = createRoute({
  method: "get",
  path: "/v1/runs",
  operationId: "listRuns",
  summary: "List runs, the newest first",
  tags: ["runs"],
  request: {
    query: z.object({
      after: z.string().min(1).max(64).optional().openapi({
        description: "Only runs after this one in the list",
      }),
      limit: wholeNumberOr(20, 1, 100),
      status: z.string().regex(/^[a-z]+(,[a-z]+)*$/, "must be states separated by commas").optional().openapi(
        {
          description: `States separated by commas: ${RUN_STATES.join(", ")}`,
          example: "queued,running",
        },
      ),
      task: z.enum(RUN_TASKS).optional().openapi({ description: "Only runs that do this" }),
      metadata: metadataQuery,
    }),
  },
  responses: { 200: json(pageOf(runSchema).openapi("RunPage"), "Runs"), ...otherwise },
});

const get = createRoute({
  method: "get",
  path: "/v1/runs/{id}",
  operationId: "getRun",
  summary: "Show a run",
  tags: ["runs"],
  request: { params: runId },
  responses: { 200: json(runSchema, "The run"), ...otherwise },
});

const remove = createRoute({
  method: "delete",
  path: "/v1/runs/{id}",
  operationId: "removeRun",
  summary: "Remove a run at rest and all that it made",
  tags: ["runs"],
  request: { params: runId },
  responses: { 204: { description: "It is gone" }, ...otherwise },
});

/** What can be asked of a run. */
const ACTIONS = {
  cancel: "End a run for good",
  pause: "Save a checkpoint and end the run's process; it waits until it is resumed",
  resume: "Queue a run that is paused, interrupted or failed; it continues from its last checkpoint",
  checkpoint: "Save a checkpoint and go on",
} as const;

type Action = keyof typeof ACTIONS;

const actionRoute = <A extends Action>(action: A) =>
  createRoute({
    method: "post",
    path: `/v1/runs/{id}/${action}` as const,
    operationId: `${action}Run`,
    summary: ACTIONS[action],
    tags: ["runs"],
    request: { params: runId },
    responses: {
      202: json(runSchema, "The run as it is now; what was asked may take a while"),
      ...otherwise,
    },
  });

/** Adds the routes. */
export function addRunRoutes(app: App, service: Service): void {
  const { store, catalogue, idempotency } = service;

  app.openapi(submit, async (c) => {
    const identity = c.get("identity")!;
    const { recipe, metadata } = c.req.valid("json");
    const sent = {
      owner: identity.name,
      key: c.req.valid("header")["idempotency-key"],
      body: await c.req.text(),
    };
    const run = await idempotency.once(
      sent,
      (key) => submitRun(service, identity, { recipe, ...(metadata ? { metadata } : {}) }, key),
    );
    return c.json(runView(run, catalogue.hide), 202, { Location: `/v1/runs/${run.id}` });
  });

  app.openapi(list, async (c) => {
    const { after, limit, status, task } = c.req.valid("query");
    const states = status?.split(",") ?? [];
    const unknown = states.find((state) => !RUN_STATES.includes(state as RunState));
    if (unknown !== undefined) {
      throw new HttpError(400, `there is no state "${unknown}"; states are ${RUN_STATES.join(", ")}`, {
        code: "bad_request",
        param: "status",
      });
    }
    const wanted = metadataFilter(c.req.queries());
    const page = await store.list({
      limit,
      ...(after === undefined ? {} : { after }),
      ...(states.length > 0 ? { states: states as RunState[] } : {}),
      ...(wanted ? { metadata: wanted } : {}),
      ...(task === undefined ? {} : { task }),
    });
    return c.json({
      object: "list" as const,
      data: page.data.map((run) => runView(run, catalogue.hide)),
      hasMore: page.hasMore,
    }, 200);
  });

  app.openapi(get, async (c) => {
    return c.json(runView(await find(service, c.req.valid("param").id), catalogue.hide), 200);
  });

  app.openapi(remove, async (c) => {
    const run = await find(service, c.req.valid("param").id);
    mustControl(c.get("identity")!, run);
    await service.removeRun(run);
    return c.body(null, 204);
  });

  for (const action of Object.keys(ACTIONS) as Action[]) {
    app.openapi(actionRoute(action), async (c) => {
      const run = await find(service, c.req.valid("param").id);
      mustControl(c.get("identity")!, run);
      await act(service, run, action);
      return c.json(runView(await find(service, run.id), catalogue.hide), 202);
    });
  }
}

/** The run with an id. */
export async function find({ store }: Service, id: string): Promise<StoredRun> {
  const run = await store.get(id);
  if (!run) throw new UnknownRunError(id);
  return run;
}

/** Refuses who neither owns a run nor is an administrator. */
export function mustControl(identity: Identity, run: StoredRun): void {
  if (isAllowed(identity, "admin") || (run.owner === identity.name && run.worker === "service")) return;
  throw new HttpError(403, "this run belongs to someone else; only an administrator may do that", {
    code: "owner",
  });
}

/** Does what is asked of a run, in whatever state it is. */
export async function act({ store }: Service, run: StoredRun, action: Action): Promise<void> {
  if (action === "resume") {
    // A run of a terminal that was killed is still said to run.
    await store.requeue((await settle(store, run)).id, "service");
  } else if (action !== "cancel" || run.state !== "cancelled") await askOfRun(store, run, action);
}

/** What runs are to have in their metadata, by a query. */
export function metadataFilter(
  queries: Readonly<Record<string, string[]>>,
): Record<string, string> | undefined {
  const found: Record<string, string> = {};
  for (const [name, [value]] of Object.entries(queries)) {
    const key = /^metadata\[(.{1,64})\]$/.exec(name)?.[1];
    if (key !== undefined && value !== undefined) found[key] = value;
  }
  return Object.keys(found).length > 0 ? found : undefined;
}
