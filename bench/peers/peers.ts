/**
 * The libraries that a step is compared with.
 *
 * @module
 */
import type { CreatePeer } from "./peer.ts";

/** The libraries by name; a module is loaded only when its library is asked for. */
export const PEERS: Readonly<Record<string, () => Promise<{ createPeer: CreatePeer }>>> = {
  "jax-js": () => import("./jax_js.ts"),
  "tensorflow-js": () => import("./tensorflow_js.ts"),
};
