/**
 * Runs under the names of the OpenAI API's fine-tuning jobs, so that its stock clients drive Limbeck.
 *
 * @module
 */
import { createRoute, z } from "@hono/zod-openapi";
import type { StoredRun } from "../../runs/store/store.ts";
import { UnknownRunError } from "../../runs/store/store_errors.ts";
import { isTask } from "../../runs/task/run_recipe.ts";
import type { App } from "../http/app_env.ts";
import { HttpError } from "../http/http_error.ts";
import { idempotencyHeader } from "../idempotency.ts";
import { keptCheckpoints } from "../run_model.ts";
import { act, find, metadataFilter, metadataQuery, mustControl } from "../routes/runs.ts";
import { json, otherwise, wholeNumberOr } from "../schemas.ts";
import type { Service } from "../service.ts";
import { submitRun } from "../submit.ts";
import { jobRequest, recipeOf } from "./job_request.ts";
import { checkpointId, eventNumber, jobCheckpointView, jobEventView, jobView } from "./job_view.ts";
import { pageAfter, unknownEntry } from "./paging.ts";
import { TrainedTokens } from "./step_metrics.ts";

const jobSchema = z.looseObject({
  id: z.string(),
  object: z.literal("fine_tuning.job"),
  status: z.string(),
  model: z.string(),
  fine_tuned_model: z.string().nullable(),
  method: z.looseObject({ type: z.enum(["supervised", "distillation"]) }),
  trained_tokens: z.number().int().nullable().openapi({
    description: "Tokens that it learnt from, each as often as it did; null before its end",
  }),
  result_files: z.array(z.string()).openapi({ description: "At its end, a CSV of its steps" }),
}).openapi("FineTuningJob");

const listOf = <T extends z.ZodType>(item: T) =>
  z.object({ object: z.literal("list"), data: z.array(item), has_more: z.boolean() });

const jobId = z.object({ id: z.string().min(1).max(64) });
const paging = (otherwise: number) =>
  z.object({ after: z.string().min(1).max(96).optional(), limit: wholeNumberOr(otherwise, 1, 100) });

const route = <M extends "get" | "post", P extends string, R extends object, S extends z.ZodType>(
  method: M,
  path: P,
  operationId: string,
  summary: string,
  request: R,
  answer: S,
) =>
  createRoute({
    method,
    path,
    operationId,
    summary,
    tags: ["fine-tuning"],
    request,
    responses: { 200: json(answer, summary), ...otherwise },
  });

const JOBS = "/v1/fine_tuning/jobs";

const create = route("post", JOBS, "createJob", "Begin a job", {
  headers: idempotencyHeader,
  body: { required: true as const, content: { "application/json": { schema: jobRequest } } },
}, jobSchema);
const list = route(
  "get",
  JOBS,
  "listJobs",
  "List jobs, the newest first",
  { query: paging(20).extend({ metadata: metadataQuery }) },
  listOf(jobSchema),
);
const get = route("get", `${JOBS}/{id}`, "getJob", "Show a job", { params: jobId }, jobSchema);
const events = route(
  "get",
  `${JOBS}/{id}/events`,
  "listJobEvents",
  "List what a job said, the newest first",
  { params: jobId, query: paging(20) },
  listOf(z.looseObject({ id: z.string(), object: z.literal("fine_tuning.job.event") })),
);
const checkpoints = route(
  "get",
  `${JOBS}/{id}/checkpoints`,
  "listJobCheckpoints",
  "List a job's checkpoints, the newest first",
  { params: jobId, query: paging(10) },
  listOf(z.looseObject({ id: z.string(), object: z.literal("fine_tuning.job.checkpoint") })),
);
const actions = (["cancel", "pause", "resume"] as const).map((action) =>
  [
    action,
    route(
      "post",
      `${JOBS}/{id}/${action}`,
      `${action}Job`,
      `${action[0]!.toUpperCase()}${action.slice(1)} a job`,
      {
        params: jobId,
      },
      jobSchema,
    ),
  ] as const
);

/** Adds the routes. */
export function addFineTuningRoutes(app: App, service: Service): void {
  const { store, catalogue, idempotency } = service;
  const trained = new TrainedTokens(store);
  const jobOf = async (run: StoredRun) => jobView(run, catalogue.hide, await trained.of(run));

  app.openapi(create, async (c) => {
    const identity = c.get("identity")!;
    const request = c.req.valid("json");
    const { suffix } = request;
    const metadata = { ...request.metadata, ...(suffix ? { suffix } : {}) };
    const sent = {
      owner: identity.name,
      key: c.req.valid("header")["idempotency-key"],
      body: await c.req.text(),
    };
    const run = await idempotency.once(sent, async (key) => {
      const recipe = await recipeOf(service, request);
      return await submitRun(service, identity, { recipe, metadata }, key, "");
    });
    return c.json(await jobOf(run), 200);
  });

  app.openapi(list, async (c) => {
    const { after, limit } = c.req.valid("query");
    const metadata = metadataFilter(c.req.queries());
    if (c.req.query("metadata") !== undefined) {
      throw new HttpError(400, "jobs are found by entries of their metadata: metadata[name]=value", {
        param: "metadata",
      });
    }
    const page = await store.list({
      limit,
      task: "distill",
      ...(after ? { after } : {}),
      ...(metadata ? { metadata } : {}),
    });
    const data = [];
    for (const run of page.data) data.push(await jobOf(run));
    return c.json({ object: "list" as const, data, has_more: page.hasMore }, 200);
  });

  app.openapi(get, async (c) => c.json(await jobOf(await findJob(service, c.req.valid("param").id)), 200));

  for (const [action, route] of actions) {
    app.openapi(route, async (c) => {
      const run = await findJob(service, c.req.valid("param").id);
      mustControl(c.get("identity")!, run);
      await act(service, run, action);
      return c.json(await jobOf(await findJob(service, run.id)), 200);
    });
  }

  app.openapi(events, async (c) => {
    const run = await findJob(service, c.req.valid("param").id);
    const { after, limit } = c.req.valid("query");
    const cursor = after === undefined ? 0 : eventNumber(run, after);
    if (cursor === undefined) throw unknownEntry(after!);
    const found = cursor === 1
      ? []
      : await store.events(run.id, { newestFirst: true, after: cursor, limit: limit + 1 });
    const data = found.slice(0, limit).map((event) => jobEventView(run.id, event, catalogue.hide));
    return c.json({ object: "list" as const, data, has_more: found.length > limit }, 200);
  });

  app.openapi(checkpoints, async (c) => {
    const run = await findJob(service, c.req.valid("param").id);
    // The model of each can be asked for, so only those that are kept are told of.
    const all = (await keptCheckpoints(store, run)).toReversed();
    const page = pageAfter(all, c.req.valid("query"), ({ step }) => checkpointId(run.id, step));
    const losses = await store.events(run.id, { types: ["metrics", "evaluation"], holding: true });
    const data = page.data.map((checkpoint) => jobCheckpointView(run.id, checkpoint, losses));
    return c.json({ object: "list" as const, ...page, data }, 200);
  });
}

/** The run that distils with an id: what else runs do has no place among jobs. */
async function findJob(service: Service, id: string): Promise<StoredRun> {
  const run = await find(service, id);
  if (isTask(run.recipe)) throw new UnknownRunError(id);
  return run;
}
