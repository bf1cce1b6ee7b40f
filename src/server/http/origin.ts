/**
 * Keeps other sites out: pages elsewhere can make a browser send requests here, and can make their own name point here.
 *
 * @module
 */
import type { Context, MiddlewareHandler } from "hono";
import { getCookie } from "hono/cookie";
import type { AppEnv } from "./app_env.ts";
import { HttpError } from "./http_error.ts";
import { SESSION_COOKIE } from "../auth/sessions.ts";

const SAFE_METHODS: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS"]);

/**
 * Refuses requests whose Host header names another host (DNS rebinding). Ports do not matter: a name that points elsewhere is what such an
 * attack needs, and a proxy may have a port of its own.
 *
 * @param hosts names or addresses; what is not in them is refused
 *
 * @example
 * ```ts ignore
 * app.use(checkHost(new Set(["localhost", "127.0.0.1", "::1", "distill.example.org"])));
 * ```
 */
export function checkHost(hosts: ReadonlySet<string>): MiddlewareHandler<AppEnv> {
  const names = new Set([...hosts].map((host) => hostName(host) ?? host.toLowerCase()));
  return async function checkHost(c, next) {
    const host = hostName(ownHost(c));
    if (host === undefined || !names.has(host)) {
      throw new HttpError(421, "this service is not known by that name; --public-host NAME makes it so", {
        code: "unknown_host",
      });
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
 * Refuses requests that change something and come from a page elsewhere, which is one on another port too. Programs send no `Origin` and no
 * `Sec-Fetch-Site`; browsers always send one of them, so a session's cookie without either is refused as well.
 *
 * @param origins further origins that may, such as `https://lab.example`
 *
 * @example
 * ```ts ignore
 * app.use(checkOrigin(new Set(["https://lab.example"])));
 * ```
 */
export function checkOrigin(origins: ReadonlySet<string>): MiddlewareHandler<AppEnv> {
  return async function checkOrigin(c, next) {
    if (!SAFE_METHODS.has(c.req.method) && !isFromHere(c, origins)) {
      throw new HttpError(403, "a page of another site may not change anything here", { code: "cross_site" });
    }
    await next();
  };
}

function isFromHere(c: Context<AppEnv>, origins: ReadonlySet<string>): boolean {
  const [origin, site] = [c.req.header("Origin"), c.req.header("Sec-Fetch-Site")];
  if (origin !== undefined && origins.has(origin)) return true;
  if (origin !== undefined && !isOriginOf(origin, ownHost(c))) return false;
  // An own origin with `cross-site` is the same host by another protocol.
  if (site !== undefined) return site === "same-origin" || site === "none";
  return origin !== undefined || c.req.header("Authorization") !== undefined ||
    getCookie(c, SESSION_COOKIE) === undefined;
}

function ownHost(c: Context<AppEnv>): string {
  return c.req.header("Host") ?? new URL(c.req.url).host;
}

/** Whether an Origin header, which is a protocol and a host and nothing else, is that of a host with its port. */
function isOriginOf(origin: string, host: string): boolean {
  const url = URL.parse(origin);
  return url !== null && url.origin === origin.toLowerCase() && url.host === host.toLowerCase();
}
