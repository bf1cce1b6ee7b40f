/**
 * What runs say: their events as a page or a stream, their metrics, their checkpoints.
 *
 * @module
 */
import { createRoute, z } from "@hono/zod-openapi";
import type { RunEvent } from "../../distill/run/events.ts";
import { isEnd } from "../../runs/store/run_states.ts";
import type { App } from "../http/app_env.ts";
import { keptCheckpoints } from "../run_model.ts";
import { eventView } from "../run_view.ts";
import { eventSchema, json, otherwise, pageOf, runId, wholeNumber, wholeNumberOr } from "../schemas.ts";
import type { Service } from "../service.ts";
import { find } from "./runs.ts";

const events = createRoute({
  method: "get",
  path: "/v1/runs/{id}/events",
  operationId: "listEvents",
  summary: "Read what a run has said, or follow it",
  description:
    "With `Accept: text/event-stream`, a stream: events from `after` or Last-Event-ID on, then each as it is stored, until the run ends; " +
    "the id of each is its number. A reader that comes back after the last event is answered 204.",
  tags: ["events"],
  request: {
    params: runId,
    query: z.object({
      after: wholeNumber(0, 2 ** 48).openapi({ description: "Only events with a greater number" }),
      limit: wholeNumberOr(100, 1, 1000),
    }),
    headers: z.object({
      "last-event-id": z.string().regex(/^\d{0,15}$/, "must be the number of an event").optional(),
    }),
  },
  responses: {
    200: {
      description: "Events in the order of their numbers",
      content: {
        "application/json": { schema: pageOf(eventSchema).openapi("EventPage") },
        "text/event-stream": { schema: z.string() },
      },
    },
    204: { description: "The run has ended and all its events are read" },
    ...otherwise,
  },
});

const numberOrNull = z.number().nullable();

const pointSchema = z.looseObject({
  step: z.number().int().openapi({ description: "The last step of the point; its metrics are shown" }),
  steps: z.number().int().openapi({ description: "Steps in the point" }),
  meanLoss: numberOrNull,
  leastLoss: numberOrNull,
  mostLoss: numberOrNull,
}).openapi("MetricsPoint");

const metrics = createRoute({
  method: "get",
  path: "/v1/runs/{id}/metrics",
  operationId: "readMetrics",
  summary: "Read the metrics of a run, as many points as asked for",
  description: "Rows that an interrupted attempt wrote and a later one took back are left out.",
  tags: ["events"],
  request: {
    params: runId,
    query: z.object({
      from: wholeNumberOr(0, 0, 2 ** 31).openapi({ description: "First step" }),
      to: wholeNumber(0, 2 ** 31).openapi({ description: "Last step; the newest when absent" }),
      resolution: wholeNumberOr(500, 1, 5000).openapi({ description: "Most points" }),
    }),
  },
  responses: {
    200: json(
      z.object({
        object: z.literal("metrics"),
        training: z.array(pointSchema),
        evaluations: z.array(eventSchema),
      })
        .openapi("Metrics"),
      "Training by points, and every measurement on held-out data",
    ),
    ...otherwise,
  },
});

const checkpoints = createRoute({
  method: "get",
  path: "/v1/runs/{id}/checkpoints",
  operationId: "listCheckpoints",
  summary: "List the checkpoints that are kept",
  tags: ["events"],
  request: { params: runId },
  responses: {
    200: json(
      z.object({
        object: z.literal("list"),
        data: z.array(
          z.object({ step: z.number().int(), path: z.string(), best: z.boolean(), createdAt: z.string() })
            .openapi("Checkpoint"),
        ),
      }),
      "Checkpoints, the oldest first",
    ),
    ...otherwise,
  },
});

/** Adds the routes. */
export function addEventRoutes(app: App, service: Service): void {
  const { store, catalogue: { hide }, streams } = service;

  app.openapi(events, async (c) => {
    const run = await find(service, c.req.valid("param").id);
    const { after = 0, limit } = c.req.valid("query");
    if (!wantsStream(c.req.header("Accept"))) {
      const found = await store.events(run.id, { after, limit: limit + 1 });
      const data = found.slice(0, limit).map((event) => eventView(event, hide));
      return c.json({ object: "list" as const, data, hasMore: found.length > limit }, 200);
    }
    // A reader that comes back says where it was; what it first asked for no longer counts.
    const last = c.req.valid("header")["last-event-id"];
    const cursor = last ? Number(last) : after;
    if (isEnd(run.state) && cursor >= run.seq) return c.body(null, 204);
    const reader = c.get("identity")!.name;
    const show = (event: RunEvent) => eventView(event, hide);
    const stream = streams.events(store, { id: run.id, after: cursor, reader }, show);
    return new Response(stream, {
      headers: {
        "Content-Type": "text/event-stream",
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",
      },
    });
  });

  app.openapi(metrics, async (c) => {
    const run = await find(service, c.req.valid("param").id);
    const { from, to = 2 ** 31, resolution } = c.req.valid("query");
    const points = await store.metrics(run.id, { from, to, points: resolution });
    const evaluations = (await store.events(run.id, { types: ["evaluation"], holding: true }))
      .filter((event) => event.type === "evaluation" && event.step >= from && event.step <= to);
    const training = points.map(({ metrics: { type: _, ...metrics }, steps, loss }) => ({
      ...metrics,
      steps,
      meanLoss: loss.mean,
      leastLoss: loss.least,
      mostLoss: loss.most,
    }));
    return c.json({ object: "metrics" as const, training, evaluations }, 200);
  });

  app.openapi(checkpoints, async (c) => {
    const run = await find(service, c.req.valid("param").id);
    const data = (await keptCheckpoints(store, run))
      .map(({ step, path, best, time }) => ({ step, path, best, createdAt: time }));
    return c.json({ object: "list" as const, data }, 200);
  });
}

function wantsStream(accept: string | undefined): boolean {
  return accept !== undefined && /\btext\/event-stream\b/.test(accept);
}
