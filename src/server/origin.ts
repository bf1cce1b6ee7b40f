/**
 * Keeps other sites out: pages elsewhere can make a browser send requests here, and can make their own name point here.
 *
 * @module
 */
import type { MiddlewareHandler } from "hono";
import type { AppEnv } from "./app_env.ts";
import { HttpError } from "./http_error.ts";

const SAFE_METHODS: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS"]);

/**
 * Refuses requests whose Host header names another host (DNS rebinding).
 *
 * @param hosts names without a port, small letters; what is not in them is refused
 */
export function checkHost(hosts: ReadonlySet<string>): MiddlewareHandler<AppEnv> {
  return async function checkHost(c, next) {
    const host = hostName(c.req.header("Host") ?? new URL(c.req.url).host);
    if (host === undefined || !hosts.has(host)) {
      throw new HttpError(421, "this service is not known by that name", { code: "unknown_host" });
    }
    await next();
  };
}

/** The name in a Host header: without port and dot at the end, in small letters; undefined where it is none. */
export function hostName(header: string): string | undefined {
  const match = /^(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?$/i.exec(header);
  return match?.[1]?.toLowerCase().replace(/\.$/, "").replace(/^\[|\]$/g, "");
}

/**
 * Refuses requests that change something and come from a page elsewhere. Programs send no `Origin` and no `Sec-Fetch-Site`; browsers
 * always send one of them.
 *
 * @param origins further origins that may, such as `https://lab.example`
 */
export function checkOrigin(origins: ReadonlySet<string>): MiddlewareHandler<AppEnv> {
  return async function checkOrigin(c, next) {
    if (!SAFE_METHODS.has(c.req.method)) {
      const [origin, site] = [c.req.header("Origin"), c.req.header("Sec-Fetch-Site")];
      const own = origin !== undefined && sameHost(origin, c.req.header("Host") ?? new URL(c.req.url).host);
      const trusted = origin !== undefined && origins.has(origin);
      const elsewhere = origin !== undefined
        ? !own && !trusted
        : site !== undefined && site !== "same-origin" && site !== "none";
      if (elsewhere) {
        throw new HttpError(403, "a page of another site may not change anything here", {
          code: "cross_site",
        });
      }
    }
    await next();
  };
}

function sameHost(origin: string, host: string): boolean {
  try {
    return new URL(origin).host === host.toLowerCase();
  } catch {
    return false;
  }
}
