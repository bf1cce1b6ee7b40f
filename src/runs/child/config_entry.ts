/**
 * The entry of a process that reads a configuration.
 *
 * @module
 */
import { didYouMean } from "../../base/did_you_mean.ts";
import type { ConfigMessage } from "./config_file.ts";
import { isPlugin } from "../../registry/exported_plugins.ts";

// Stdout carries the message only. This module is evaluated before the configuration.
console.log = console.info = console.debug = console.error;

/** Loads a configuration, tells its plugins and ends the process. */
export async function tellConfig(load: () => Promise<object>): Promise<never> {
  let message: ConfigMessage;
  try {
    message = describeConfig(await load());
  } catch (error) {
    message = { error: `cannot be run: ${error instanceof Error ? error.message : error}` };
  }
  await new Blob([JSON.stringify(message) + "\n"]).stream().pipeTo(Deno.stdout.writable);
  return Deno.exit(0);
}

const HINT = 'Write `export default defineConfig({ plugins: ["./my_loss.ts"] });`.';

/** What a configuration's module says. */
export function describeConfig(module: object): ConfigMessage {
  const config: unknown = "default" in module ? module.default : undefined;
  if (typeof config !== "object" || config === null || Array.isArray(config) || isPlugin(config)) {
    return { error: "exports no configuration as its default", hint: HINT };
  }
  const unknown = Object.keys(config).find((key) => key !== "plugins");
  if (unknown !== undefined) {
    return { error: `there is no setting "${unknown}"${didYouMean(unknown, ["plugins"])}`, hint: HINT };
  }
  const plugins: unknown = "plugins" in config ? config.plugins : [];
  if (!Array.isArray(plugins)) return { error: "plugins must be a list", hint: HINT };
  const wrong = plugins.findIndex((entry) => typeof entry !== "string" && !isPlugin(entry));
  if (wrong >= 0) {
    return {
      error: `plugins.${wrong} is neither a plugin nor the name of a file or package`,
      hint: "A plugin is what defineDivergence, defineLoss, defineFeatureLoss or defineAdapter returns.",
    };
  }
  return {
    names: plugins.filter((entry) => typeof entry === "string"),
    hasOwn: plugins.some((entry) => typeof entry !== "string"),
  };
}
