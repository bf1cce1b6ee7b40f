/**
 * The losses and adapters that the command line knows.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { resolve, toFileUrl } from "@std/path";
import { builtins } from "../../plugins/mod.ts";
import { Registry } from "../registry/registry.ts";
import { loadPlugins } from "../runs/exported_plugins.ts";

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
export async function registryWith(files: readonly string[]): Promise<Registry> {
  const registry = builtinRegistry();
  for (const file of files) {
    const path = resolve(file);
    registry.addAll(await loadPlugins({ path, load: () => import(toFileUrl(path).href) }));
  }
  return registry;
}
