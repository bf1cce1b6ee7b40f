/**
 * The entry of a training process. A generated module hands it the run's plugins.
 *
 * @module
 */
import { builtins } from "../../../plugins/mod.ts";
import { distillRun } from "../../distill/run/distill.ts";
import { Registry } from "../../registry/registry.ts";
import { runChild } from "./training_process.ts";
import { loadPlugins, type PluginModule } from "../../registry/exported_plugins.ts";

/** Trains with every plugin that the modules export, and ends the process. */
export function main(modules: readonly PluginModule[]): Promise<never> {
  return runChild(distillRun, async () => {
    const registry = new Registry().addAll(builtins);
    for (const module of modules) registry.addAll(await loadPlugins(module), module.path);
    return registry;
  });
}
