/**
 * The entry of a training process. A generated module imports it together with the run's plugins.
 *
 * @module
 */
import { builtins } from "../../plugins/mod.ts";
import { distillRun } from "../distill/distill.ts";
import { InputError } from "../errors.ts";
import type { Plugin } from "../registry/contract.ts";
import { Registry } from "../registry/registry.ts";
import { runChild } from "./child_host.ts";

/**
 * Trains, and ends the process.
 *
 * @param modules the plugin modules as imported; every plugin they export is registered
 */
export function runTrainer(modules: readonly object[]): Promise<never> {
  return runChild(distillRun, () => {
    const registry = new Registry().addAll(builtins);
    modules.forEach((module, i) => registry.addAll(exportedPlugins(module, i)));
    return registry;
  });
}

/** Plugins among a module's exports, alone or in lists. The registry checks each. */
function exportedPlugins(module: object, index: number): Plugin[] {
  const found = Object.values(module).flat().filter((value): value is Plugin =>
    typeof value === "object" && value !== null && "id" in value && "kind" in value && "contract" in value
  );
  if (found.length > 0) return [...new Set(found)];
  throw new InputError(`plugin module ${index + 1} exports no plugin`, {
    hint:
      "Export what defineDivergence, defineLoss, defineFeatureLoss or defineAdapter returns, for instance as the default export.",
  });
}
