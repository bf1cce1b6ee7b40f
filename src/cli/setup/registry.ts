/**
 * The losses, adapters, merges and families that the command line knows.
 *
 * @module
 */
import { builtins } from "../../../plugins/mod.ts";
import { Registry } from "../../registry/registry.ts";
import { type PluginModule, registryOf } from "../../registry/exported_plugins.ts";

/** A registry with the built-in plugins. */
export function builtinRegistry(): Registry {
  return new Registry().addAll(builtins);
}

/**
 * A registry with the built-in plugins and those of some modules, which run with this process's permissions, as a recipe written in
 * TypeScript does. A run loads them in its own process instead.
 *
 * @throws {InputError} a module that throws, or exports no plugin
 */
export function registryWith(modules: readonly PluginModule[] = []): Promise<Registry> {
  return registryOf(builtins, modules);
}
