/**
 * The entry of a training process. A generated module hands it the run's plugins.
 *
 * @module
 */
import { builtins } from "../../plugins/mod.ts";
import { distillRun } from "../distill/distill.ts";
import { InputError, LimbeckError } from "../errors.ts";
import type { Plugin } from "../registry/contract.ts";
import { Registry } from "../registry/registry.ts";
import { runChild } from "./child_host.ts";
import { exportedPlugins } from "./exported_plugins.ts";

/** A plugin module that is still to be loaded, so that what it throws can be told like any other error. */
export interface PluginModule {
  readonly path: string;
  load(): Promise<object>;
}

/** Trains with every plugin that the modules export, and ends the process. */
export function runTrainer(modules: readonly PluginModule[]): Promise<never> {
  return runChild(distillRun, async () => {
    const registry = new Registry().addAll(builtins);
    for (const [i, module] of modules.entries()) registry.addAll(await pluginsOf(module, i));
    return registry;
  });
}

async function pluginsOf({ path, load }: PluginModule, index: number): Promise<Plugin[]> {
  let module: object;
  try {
    module = await load();
  } catch (cause) {
    throw new InputError(
      `the plugin throws while it is loaded: ${cause instanceof Error ? cause.message : cause}`,
      {
        where: path,
        hint: "`limbeck plugin check` looks at a plugin alone.",
        cause,
      },
    );
  }
  try {
    return exportedPlugins(module, index);
  } catch (error) {
    if (!(error instanceof LimbeckError)) throw error;
    throw new InputError("exports no plugin", { where: path, hint: error.hint, cause: error });
  }
}
