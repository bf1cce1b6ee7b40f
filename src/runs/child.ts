/**
 * The entry of a training process. A generated module imports it together with the run's plugins.
 *
 * @module
 */
import { builtins } from "../../plugins/mod.ts";
import { distillRun } from "../distill/distill.ts";
import { Registry } from "../registry/registry.ts";
import { runChild } from "./child_host.ts";
import { exportedPlugins } from "./exported_plugins.ts";

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
