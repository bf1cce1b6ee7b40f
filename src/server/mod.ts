/**
 * The HTTP service, for hosts of their own.
 *
 * @example
 * ```ts ignore
 * import { createApp, Service } from "@limbeck/limbeck/server";
 *
 * const service = await Service.start({ dataFolder: "limbeck-data" });
 * export default createApp(service); // { fetch }
 * ```
 *
 * @module
 */
export { createApp } from "./app.ts";
export { type Caps, DEFAULT_CAPS } from "./caps.ts";
export { type Address, listen, type Listening } from "./listen.ts";
export { Service, type ServiceOptions } from "./service.ts";
export { type Identity, newToken, type Scope, TokenList } from "./auth/tokens.ts";
