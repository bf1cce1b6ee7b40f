/**
 * Who may do what: the identity behind a request, and what it needs to be allowed.
 *
 * @module
 */
import type { MiddlewareHandler } from "hono";
import { getCookie } from "hono/cookie";
import type { AppEnv } from "./app_env.ts";
import { HttpError } from "./http_error.ts";
import { SESSION_COOKIE, type Sessions } from "../auth/sessions.ts";
import { type Identity, isAllowed, type Scope, type TokenList } from "../auth/tokens.ts";

const CHALLENGE = 'Bearer realm="limbeck"';

/** Whoever uses a service without tokens, which listens on this machine only. */
const ANYONE: Identity = { name: "", scope: "admin" };

/**
 * Finds out who sends a request: by its bearer token, else by its session. Without tokens, everyone is an administrator. Refusing is left
 * to {@linkcode needs}, so that wrong tokens are counted by the rate limit in between.
 *
 * @example
 * ```ts ignore
 * app.use(identify(tokens, sessions), rateLimit({ perSecond: 10, burst: 50 }));
 * app.get("/v1/runs", needs("read"), listRuns);
 * ```
 */
export function identify(tokens: TokenList, sessions: Sessions): MiddlewareHandler<AppEnv> {
  return async function identify(c, next) {
    if (tokens.isEmpty) {
      c.set("identity", ANYONE);
      return await next();
    }
    const header = c.req.header("Authorization");
    if (header !== undefined) {
      const bearer = /^Bearer ([\x21-\x7e]{1,512})$/i.exec(header)?.[1];
      const identity = bearer === undefined ? undefined : tokens.identify(bearer);
      // A cookie beside it does not count: who sends a token means to be known by it.
      if (identity) c.set("identity", identity);
      else c.set("hasWrongToken", true);
    } else {
      const cookie = getCookie(c, SESSION_COOKIE);
      const identity = cookie === undefined ? undefined : sessions.identify(cookie);
      if (identity) c.set("identity", identity);
    }
    await next();
  };
}

/**
 * Lets a request pass that is allowed what it needs.
 *
 * @throws {HttpError} 401 nobody is known to send it; 403 whoever does may not do that
 */
export function needs(scope: Scope): MiddlewareHandler<AppEnv> {
  return async function needs(c, next) {
    const identity = c.get("identity");
    if (c.get("hasWrongToken")) throw unauthorized("the token is not known", "invalid_token");
    if (!identity) throw unauthorized("this service needs a token: send it as `Authorization: Bearer TOKEN`");
    if (!isAllowed(identity, scope)) {
      throw new HttpError(403, `this needs a token with the scope ${scope}; yours has ${identity.scope}`, {
        code: "scope",
        // RFC 6750, section 3.1.
        headers: { "WWW-Authenticate": `${CHALLENGE}, error="insufficient_scope", scope="${scope}"` },
      });
    }
    await next();
  };
}

function unauthorized(message: string, error?: string): HttpError {
  return new HttpError(401, message, {
    code: "unauthorized",
    headers: { "WWW-Authenticate": error ? `${CHALLENGE}, error="${error}"` : CHALLENGE },
  });
}
