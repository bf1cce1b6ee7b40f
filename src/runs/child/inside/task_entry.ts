/**
 * The entry of a process that does a task. A generated module hands it the run's plugins.
 *
 * @module
 */
import { builtins } from "../../../../plugins/mod.ts";
import { type PluginModule, registryOf } from "../../../registry/exported_plugins.ts";
import { runTask } from "../../task/run_task.ts";
import { parseTask } from "../../task/task.ts";
import { runChild } from "./training_process.ts";

/** Does the task with every plugin that the modules export, and ends the process. */
export function main(modules: readonly PluginModule[]): Promise<never> {
  return runChild(runTask, () => registryOf(builtins, modules), parseTask);
}
