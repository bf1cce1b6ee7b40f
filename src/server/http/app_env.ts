/**
 * What every handler knows of its request.
 *
 * @module
 */
import type { OpenAPIHono } from "@hono/zod-openapi";
import type { Identity } from "../auth/tokens.ts";

/** Variables of a request. */
export interface AppEnv {
  Variables: {
    /** Who sends it; absent where that is not known. */
    identity?: Identity;
    /** It came with a token that is none of the service's. */
    hasWrongToken?: boolean;
    requestId: string;
  };
}

/** A Hono app with an OpenAPI document. */
export type App = OpenAPIHono<AppEnv>;
