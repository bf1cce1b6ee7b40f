/**
 * Finds the plugins among what a module exports.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";
import type { Plugin } from "./contract.ts";
import { definers } from "./kinds/mod.ts";
import { Registry } from "./registry.ts";

/** Whether a value looks like a plugin; the registry says what is wrong with it. */
export function isPlugin(value: unknown): value is Plugin {
  return typeof value === "object" && value !== null && "id" in value && "kind" in value &&
    "contract" in value;
}

/** What an export holds: itself, a list, or the plugins of a configuration. */
function listed(value: unknown): unknown {
  const isConfig = typeof value === "object" && value !== null && !isPlugin(value) && "plugins" in value;
  return isConfig ? value.plugins : value;
}

/**
 * Plugins among a module's exports, alone or in lists. The registry checks each.
 *
 * @param index Its place among the plugin modules, for the error
 * @throws {InputError} if there is none
 */
function exportedPlugins(module: object, index: number): Plugin[] {
  const found = Object.values(module).flatMap(listed).filter(isPlugin);
  if (found.length > 0) return [...new Set(found)];
  throw new InputError(`plugin module ${index + 1} exports no plugin`, {
    hint: `Export what ${definers()} returns, for instance as the default export.`,
  });
}

/** A plugin module that is still to be loaded, so that what it throws can be told like any other error. */
export interface PluginModule {
  readonly path: string;
  load(): Promise<object>;
}

/**
 * Loads a module and finds its plugins.
 *
 * @throws {InputError} naming the module, if it throws while it is loaded or exports no plugin
 */
export async function loadPlugins({ path, load }: PluginModule): Promise<Plugin[]> {
  let module: object;
  try {
    module = await load();
  } catch (cause) {
    throw new InputError(
      `the plugin throws while it is loaded: ${cause instanceof Error ? cause.message : cause}`,
      { where: path, hint: "`limbeck plugin check` looks at a plugin alone.", cause },
    );
  }
  try {
    return exportedPlugins(module, 0);
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    throw new InputError("exports no plugin", { where: path, hint: error.hint, cause: error });
  }
}

/**
 * A registry with built-in plugins and those of some modules.
 *
 * @throws {InputError} a module that throws, or exports no plugin
 * @throws {PluginError} a plugin that the registry refuses
 */
export async function registryOf(
  builtins: readonly Plugin[],
  modules: readonly PluginModule[],
): Promise<Registry> {
  const registry = new Registry().addAll(builtins);
  for (const module of modules) registry.addAll(await loadPlugins(module), module.path);
  return registry;
}
