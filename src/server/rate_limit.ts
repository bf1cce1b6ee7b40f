/**
 * A limit of requests for each identity: a bucket that fills at a steady rate.
 *
 * @module
 */
import type { MiddlewareHandler } from "hono";
import type { AppEnv } from "./app_env.ts";
import { HttpError } from "./http_error.ts";

/** How much is allowed. */
export interface RateLimit {
  /** Requests a second in the long run. */
  readonly perSecond: number;
  /** Requests at once. */
  readonly burst: number;
}

/** Who was not seen for so long is forgotten, milliseconds. */
const FORGET_MS = 600_000;

/**
 * Answers 429 to an identity that asks for more than its share, and says when to come back.
 *
 * @param now the time in milliseconds
 */
export function rateLimit(
  { perSecond, burst }: RateLimit,
  now: () => number = () => performance.now(),
): MiddlewareHandler<AppEnv> {
  const buckets = new Map<string, { left: number; at: number }>();
  let swept = now();
  return async function rateLimit(c, next) {
    const time = now();
    if (time - swept > FORGET_MS) {
      for (const [name, { at }] of buckets) if (time - at > FORGET_MS) buckets.delete(name);
      swept = time;
    }
    // Whoever has no identity shares one bucket.
    const name = c.get("identity")?.name ?? "\0";
    const bucket = buckets.get(name) ?? { left: burst, at: time };
    bucket.left = Math.min(burst, bucket.left + (time - bucket.at) / 1000 * perSecond);
    bucket.at = time;
    buckets.set(name, bucket);
    if (bucket.left < 1) {
      const seconds = Math.ceil((1 - bucket.left) / perSecond);
      throw new HttpError(429, `too many requests: ${perSecond} a second are allowed, ${burst} at once`, {
        code: "rate_limit",
        headers: { "Retry-After": String(seconds) },
      });
    }
    bucket.left -= 1;
    await next();
  };
}
