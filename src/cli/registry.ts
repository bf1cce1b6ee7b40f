/**
 * The losses and adapters that the command line knows.
 *
 * @module
 */
import { builtins } from "../../plugins/mod.ts";
import { Registry } from "../registry/registry.ts";

/** A registry with the built-in plugins. */
export function builtinRegistry(): Registry {
  return new Registry().addAll(builtins);
}
