/**
 * Headers of every answer: what a browser may do with it.
 *
 * @module
 */
import type { MiddlewareHandler } from "hono";
import type { AppEnv } from "./app_env.ts";

const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join("; ");

/**
 * Strict headers; and CORS for the origins that the operator allows, none by default.
 *
 * @param origins such as `https://lab.example`
 *
 * @example
 * ```ts ignore
 * app.use(requestId(), secureHeaders(new Set(["https://lab.example"])));
 * ```
 */
export function secureHeaders(origins: ReadonlySet<string> = new Set()): MiddlewareHandler<AppEnv> {
  return async function secureHeaders(c, next) {
    const origin = c.req.header("Origin");
    const trusted = origin !== undefined && origins.has(origin);
    if (trusted && c.req.method === "OPTIONS" && c.req.header("Access-Control-Request-Method")) {
      return new Response(null, {
        status: 204,
        headers: {
          "Access-Control-Allow-Origin": origin,
          "Access-Control-Allow-Methods": "GET, POST, DELETE",
          "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, Last-Event-ID",
          "Access-Control-Max-Age": "600",
          "Vary": "Origin",
        },
      });
    }
    await next();
    const { headers } = c.res;
    // A route may have a policy of its own, such as for a report.
    if (!headers.has("Content-Security-Policy")) headers.set("Content-Security-Policy", POLICY);
    headers.set("X-Content-Type-Options", "nosniff");
    headers.set("X-Frame-Options", "DENY");
    headers.set("Referrer-Policy", "no-referrer");
    headers.set("Cross-Origin-Opener-Policy", "same-origin");
    headers.set("Cross-Origin-Resource-Policy", "same-origin");
    headers.set("X-Request-Id", c.get("requestId"));
    if (!headers.has("Cache-Control")) headers.set("Cache-Control", "no-store");
    // Also for an origin that is not trusted: a cache must not hand its answer to one that is.
    if (origins.size > 0) headers.append("Vary", "Origin");
    if (trusted) {
      headers.set("Access-Control-Allow-Origin", origin);
      headers.set("Access-Control-Expose-Headers", "Location, Retry-After, RateLimit, X-Request-Id, ETag");
      headers.set("Cross-Origin-Resource-Policy", "cross-origin");
    }
  };
}
