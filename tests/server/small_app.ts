/** A small app around the middleware that a test is about. */
import { Hono, type MiddlewareHandler } from "hono";
import type { AppEnv } from "../../src/server/http/app_env.ts";
import { errorResponse, toHttpError } from "../../src/server/http/http_error.ts";

/** An app whose paths answer who asks, behind some middleware. */
export function smallApp(...middleware: MiddlewareHandler<AppEnv>[]): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.use(...middleware);
  app.all("/broken", () => {
    throw new Error("secret: /home/ada/models");
  });
  app.all("/items/:id", (c) => c.json({ identity: c.get("identity") ?? null }));
  app.all("/", (c) => c.json({ identity: c.get("identity") ?? null }));
  app.onError((error) => errorResponse(toHttpError(error)));
  return app;
}

/** Status and code of an answer that must be an error in the one shape that errors have. */
export async function refusal(answer: Response | Promise<Response>): Promise<[number, string | null]> {
  const response = await answer;
  const { error } = await response.json();
  for (const field of ["message", "type", "param", "code"]) {
    if (!(field in error)) throw new Error(`an error without ${field}: ${JSON.stringify(error)}`);
  }
  return [response.status, error.code];
}
