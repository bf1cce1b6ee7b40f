/**
 * A limit of requests for each identity: a bucket that fills at a steady rate.
 *
 * @module
 */
import type { Context, MiddlewareHandler } from "hono";
import type { AppEnv } from "./app_env.ts";
import { HttpError } from "./http_error.ts";

/** How much is allowed. */
export interface RateLimit {
  /** Requests a second in the long run. */
  readonly perSecond: number;
  /** Requests at once. */
  readonly burst: number;
}

/** Buckets at once; whoever was not seen for longest is forgotten, and begins anew with a full one. */
const MOST_BUCKETS = 10_000;

/**
 * Answers 429 to an identity that asks for more than its share, and says when to come back. Whoever has no identity is known by the address
 * that the request comes from. The headers are those of draft-ietf-httpapi-ratelimit-headers-10.
 *
 * @param now the time in milliseconds
 *
 * @example
 * ```ts ignore
 * app.use(identify(tokens, sessions), rateLimit({ perSecond: 10, burst: 50 }));
 * ```
 */
export function rateLimit(
  { perSecond, burst }: RateLimit,
  now: () => number = () => performance.now(),
): MiddlewareHandler<AppEnv> {
  /** In the order in which they were last used. */
  const buckets = new Map<string, { left: number; at: number }>();
  const policy = { "RateLimit-Policy": `"requests";q=${burst};w=${Math.ceil(burst / perSecond)}` };
  return async function rateLimit(c, next) {
    const [time, who] = [now(), sender(c)];
    const { left, at } = buckets.get(who) ?? { left: burst, at: time };
    const filled = Math.min(burst, left + (time - at) / 1000 * perSecond);
    const isAllowed = filled >= 1;
    const bucket = { left: isAllowed ? filled - 1 : filled, at: time };
    buckets.delete(who);
    buckets.set(who, bucket);
    if (buckets.size > MOST_BUCKETS) buckets.delete(buckets.keys().next().value!);

    const secondsToFull = Math.ceil((burst - bucket.left) / perSecond);
    const headers = {
      ...policy,
      "RateLimit": `"requests";r=${Math.floor(bucket.left)};t=${secondsToFull}`,
    };
    if (!isAllowed) {
      throw new HttpError(429, `too many requests: ${perSecond} a second are allowed, ${burst} at once`, {
        code: "rate_limit",
        headers: { ...headers, "Retry-After": String(Math.ceil((1 - filled) / perSecond)) },
      });
    }
    await next();
    for (const [name, value] of Object.entries(headers)) c.res.headers.set(name, value);
  };
}

/** Names one bucket. Names of tokens have no space, so an address cannot be taken for one. */
function sender(c: Context<AppEnv>): string {
  const identity = c.get("identity");
  // What Deno.serve() hands to a handler; a host that hands over nothing gives all of them one bucket.
  const { remoteAddr } = (c.env ?? {}) as Partial<Deno.ServeHandlerInfo<Deno.NetAddr>>;
  return identity?.name ?? `from ${remoteAddr?.hostname ?? "somewhere"}`;
}
