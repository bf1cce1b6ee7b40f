/**
 * The entry of a training process. A generated module hands it the run's plugins.
 *
 * @module
 */
import { builtins } from "../../../../plugins/mod.ts";
import { distillRun } from "../../../distill/run/distill.ts";
import { type PluginModule, registryOf } from "../../../registry/exported_plugins.ts";
import { runChild } from "./training_process.ts";

/** Trains with every plugin that the modules export, and ends the process. */
export function main(modules: readonly PluginModule[]): Promise<never> {
  return runChild(distillRun, () => registryOf(builtins, modules));
}
