/**
 * Finds the plugins among what a module exports.
 *
 * @module
 */
import { InputError } from "../errors.ts";
import type { Plugin } from "../registry/contract.ts";

/**
 * Plugins among a module's exports, alone or in lists. The registry checks each.
 *
 * @param index Its place among the plugin modules, for the error
 * @throws {InputError} if there is none
 */
export function exportedPlugins(module: object, index: number): Plugin[] {
  const found = Object.values(module).flat().filter((value): value is Plugin =>
    typeof value === "object" && value !== null && "id" in value && "kind" in value && "contract" in value
  );
  if (found.length > 0) return [...new Set(found)];
  throw new InputError(`plugin module ${index + 1} exports no plugin`, {
    hint:
      "Export what defineDivergence, defineLoss, defineFeatureLoss or defineAdapter returns, for instance as the default export.",
  });
}
