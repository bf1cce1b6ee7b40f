/**
 * A line of JSON for each request and for what goes wrong. No token, no query and no body is written.
 *
 * @module
 */
import type { MiddlewareHandler } from "hono";
import { routePath } from "hono/route";
import type { AppEnv } from "./app_env.ts";

/** Takes a line of the log. */
export type LogLine = (line: Readonly<Record<string, unknown>>) => void;

/** Writes lines as JSON to stderr. */
export const logToStderr: LogLine = (line) => {
  console.error(JSON.stringify({ time: new Date().toISOString(), ...line }));
};

const WELL_FORMED = /^[A-Za-z0-9._-]{1,64}$/;

/** Gives a request its id: the one it came with, if that is well formed. */
export function requestId(): MiddlewareHandler<AppEnv> {
  return async function requestId(c, next) {
    const given = c.req.header("X-Request-Id") ?? "";
    c.set("requestId", WELL_FORMED.test(given) ? given : crypto.randomUUID());
    await next();
  };
}

/** Logs each request once it is answered. */
export function logRequests(log: LogLine): MiddlewareHandler<AppEnv> {
  return async function logRequests(c, next) {
    const begun = performance.now();
    await next();
    log({
      level: c.res.status >= 500 ? "error" : "info",
      message: "request",
      method: c.req.method,
      route: routePath(c, -1),
      status: c.res.status,
      milliseconds: Math.round((performance.now() - begun) * 10) / 10,
      identity: c.get("identity")?.name ?? null,
      request: c.get("requestId"),
    });
  };
}
