/**
 * The entry of a process that looks at plugins: describes them, or checks them.
 *
 * @module
 */
import { builtins } from "../../../../plugins/mod.ts";
import { hostLinearAlgebra } from "../../../linalg/host.ts";
import { InputError } from "../../../base/errors.ts";
import { checkPlugin } from "../../../registry/check/check_plugin.ts";
import type { Plugin } from "../../../registry/contract.ts";
import { loadPlugins, type PluginModule } from "../../../registry/exported_plugins.ts";
import { describePlugin } from "../../../registry/plugin_description.ts";
import type { CheckMessage, CheckOrder } from "../plugin_check.ts";
import { serve } from "./port.ts";
import { readReference } from "./read_reference.ts";

/** Does what was ordered with the plugins of the modules, or with built-in ones, and ends the process. */
export function main(modules: readonly PluginModule[]): Promise<never> {
  return serve<CheckOrder>(async (order, port) => {
    const say = (message: CheckMessage) => port.say(message);
    const given: { plugin: Plugin; module: string | null }[] = order.ids.map((id) => ({
      plugin: builtin(id),
      module: null,
    }));
    for (const module of modules) {
      for (const plugin of await loadPlugins(module)) given.push({ plugin, module: module.path });
    }
    const reference = order.reference === undefined ? undefined : await readReference(order.reference);
    for (const { plugin, module } of given) {
      say({ type: "plugin", plugin: describePlugin(plugin), module });
      if (!order.check) continue;
      const all = new Set([...builtins, ...given.map((other) => other.plugin)]);
      const others = [...all].filter((other) => other !== plugin);
      const subject = { plugin, others, options: order.options, linalg: hostLinearAlgebra };
      await checkPlugin({ ...subject, ...(reference ? { reference } : {}) }, {
        begin: (check) => say({ type: "begin", check }),
        result: (result) => say({ type: "result", result }),
        kernels: (kernels) => say({ type: "kernels", kernels }),
      });
    }
    say({ type: "end" });
  });
}

function builtin(id: string): Plugin {
  const found = builtins.find((p) => p.id === id);
  if (!found) throw new InputError(`there is no plugin "${id}"`);
  return found;
}
