/**
 * The entry of a process that looks at plugins: describes them, or checks them. A generated module imports it before the plugins.
 *
 * @module
 */
import { builtins } from "../../../plugins/mod.ts";
import { hostLinearAlgebra } from "../../distill/trained/linear_algebra.ts";
import { InputError } from "../../base/errors.ts";
import { checkPlugin } from "../../registry/check/check_plugin.ts";
import type { Plugin } from "../../registry/contract.ts";
import { exportedPlugins } from "../../registry/exported_plugins.ts";
import { describePlugin } from "../../registry/plugin_description.ts";
import type { PluginMessage, PluginOrder } from "./plugin_check.ts";

// Stdout carries messages only. This module is evaluated before any plugin.
console.log = console.info = console.debug = console.error;
const encoder = new TextEncoder();
const write = Deno.stdout.writeSync.bind(Deno.stdout);
const exit: (code: number) => never = Deno.exit.bind(Deno);

function send(message: PluginMessage): void {
  const bytes = encoder.encode(JSON.stringify(message) + "\n");
  for (let done = 0; done < bytes.length;) done += write(bytes.subarray(done));
}

/** Does what was ordered with the plugins of the modules, or with built-in ones, and ends the process. */
export async function lookAtPlugins(modules: readonly object[], order: PluginOrder): Promise<never> {
  globalThis.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    send({ type: "error", message: `a promise was rejected and nobody caught it: ${event.reason}` });
    exit(1);
  });
  try {
    const exported = modules.map((module, i) => exportedPlugins(module, i));
    const given = exported.flat();
    const plugins = order.ids.length > 0 ? order.ids.map(builtin) : given;
    for (const plugin of plugins) {
      const module = exported.findIndex((own) => own.includes(plugin));
      send({ type: "plugin", plugin: describePlugin(plugin), module: module < 0 ? null : module });
      if (!order.check) continue;
      const others = [...builtins, ...given].filter((p) => p !== plugin);
      await checkPlugin({ plugin, others, options: order.options, linalg: hostLinearAlgebra }, {
        begin: (check) => send({ type: "begin", check }),
        result: (result) => send({ type: "result", result }),
        kernels: (kernels) => send({ type: "kernels", kernels }),
      });
    }
    send({ type: "end" });
  } catch (error) {
    send({
      type: "error",
      message: (error as Error).message,
      hint: error instanceof InputError ? error.hint : undefined,
    });
    exit(1);
  }
  // GPU objects may keep the process alive.
  return exit(0);
}

function builtin(id: string): Plugin {
  const found = builtins.find((p) => p.id === id);
  if (!found) throw new InputError(`there is no plugin "${id}"`);
  return found;
}
