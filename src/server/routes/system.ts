/**
 * Whether the service lives, what it counts, and the session of a browser.
 *
 * @module
 */
import { createRoute, z } from "@hono/zod-openapi";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import { RUN_STATES } from "../../runs/store/run_states.ts";
import type { App } from "../http/app_env.ts";
import { HttpError } from "../http/http_error.ts";
import { json, otherwise } from "../schemas.ts";
import type { Service } from "../service.ts";
import { SESSION_COOKIE, SESSION_SECONDS } from "../auth/sessions.ts";

const status = z.object({ status: z.literal("ok") });

const live = createRoute({
  method: "get",
  path: "/healthz",
  operationId: "isAlive",
  summary: "Whether the service answers",
  tags: ["system"],
  security: [],
  responses: { 200: json(status, "It does"), ...otherwise },
});

const readiness = z.object({
  status: z.literal("ok"),
  gpu: z.string(),
  kernels: z.object({
    chosen: z.int().openapi({ description: "Choices among kernels that were measured on this GPU" }),
    others: z.int().openapi({
      description: "Those of them in which another was best than is taken unmeasured",
    }),
    writing: z.int().openapi({
      description: "Kinds of work for which the process that writes has such another; 0 where there is none",
    }),
  }),
});

const ready = createRoute({
  method: "get",
  path: "/readyz",
  operationId: "isReady",
  summary: "Whether the service can take runs: a GPU and a store that takes writes",
  tags: ["system"],
  security: [],
  responses: {
    200: json(readiness, "It can"),
    ...otherwise,
  },
});

const metrics = createRoute({
  method: "get",
  path: "/metrics",
  operationId: "readCounters",
  summary: "Numbers for Prometheus",
  tags: ["system"],
  responses: {
    200: {
      description: "In the text format of Prometheus",
      content: { "text/plain": { schema: z.string() } },
    },
    ...otherwise,
  },
});

const begin = createRoute({
  method: "post",
  path: "/session",
  operationId: "beginSession",
  summary: "Exchange a token for a cookie",
  tags: ["system"],
  security: [],
  request: {
    body: {
      required: true,
      content: { "application/json": { schema: z.strictObject({ token: z.string().min(1).max(512) }) } },
    },
  },
  responses: {
    204: { description: "The cookie is set; none is needed where the service has no tokens" },
    ...otherwise,
  },
});

const show = createRoute({
  method: "get",
  path: "/session",
  operationId: "showSession",
  summary: "Who one is",
  tags: ["system"],
  security: [],
  responses: {
    200: json(
      z.object({ name: z.string().nullable(), scope: z.enum(["read", "submit", "admin"]).nullable() }),
      "Name and scope; null where a token is needed and none was sent",
    ),
    ...otherwise,
  },
});

const end = createRoute({
  method: "delete",
  path: "/session",
  operationId: "endSession",
  summary: "End the session",
  tags: ["system"],
  security: [],
  responses: { 204: { description: "It has ended" }, ...otherwise },
});

/** Adds the routes. */
export function addSystemRoutes(app: App, service: Service): void {
  const { store, counters, streams, sessions, tokens } = service;
  const begun = performance.now();

  app.openapi(live, (c) => c.json({ status: "ok" as const }, 200));

  app.openapi(ready, async (c) => {
    const gpu = await service.gpu();
    const reason = service.isClosing
      ? "the service is ending"
      : gpu === undefined
      ? "there is no GPU adapter; `limbeck doctor` on the service's machine says why"
      : await store.isWritable()
      ? undefined
      : "the store takes no writes; is its disk full?";
    if (reason !== undefined) {
      throw new HttpError(503, reason, { code: "not_ready", headers: { "Retry-After": "10" } });
    }
    const choices = (await service.tuned()).flatMap(({ device, choices }) =>
      device.name === gpu ? choices : []
    );
    const others = choices.filter(({ kernel, first }) => kernel !== first).length;
    const writing = Object.keys(service.inference.kernels).length;
    const kernels = { chosen: choices.length, others, writing };
    return c.json({ status: "ok" as const, gpu: gpu!, kernels }, 200);
  });

  app.openapi(metrics, async (c) => {
    const counts = await store.countByState();
    const text = counters.text([
      ...RUN_STATES.map((state) => ({ name: "limbeck_runs", labels: { state }, value: counts[state] ?? 0 })),
      { name: "limbeck_streams", value: streams.count },
      { name: "limbeck_queue_limit", value: service.queueLimit },
      { name: "limbeck_resident_bytes", value: Deno.memoryUsage().rss },
      { name: "limbeck_uptime_seconds", value: Math.round((performance.now() - begun) / 1000) },
    ]);
    return c.text(text, 200, { "Content-Type": "text/plain; version=0.0.4; charset=utf-8" });
  });

  app.openapi(begin, (c) => {
    // Everyone may do everything: a cookie would only make a program that keeps it look like a browser, which names its origin.
    if (tokens.isEmpty) return c.body(null, 204);
    const identity = tokens.identify(c.req.valid("json").token);
    if (!identity) throw new HttpError(401, "the token is not known", { code: "unauthorized" });
    setCookie(c, SESSION_COOKIE, sessions.begin(identity), {
      httpOnly: true,
      sameSite: "Strict",
      path: "/",
      maxAge: SESSION_SECONDS,
      secure: isHttps(c.req.url, c.req.header("X-Forwarded-Proto")),
    });
    return c.body(null, 204);
  });

  app.openapi(show, (c) => {
    const identity = c.get("identity");
    return c.json({ name: identity?.name ?? null, scope: identity?.scope ?? null }, 200);
  });

  app.openapi(end, (c) => {
    const cookie = getCookie(c, SESSION_COOKIE);
    if (cookie !== undefined) sessions.end(cookie);
    deleteCookie(c, SESSION_COOKIE, { path: "/" });
    return c.body(null, 204);
  });
}

function isHttps(url: string, forwarded: string | undefined): boolean {
  return new URL(url).protocol === "https:" || forwarded === "https";
}
