/**
 * The entry of a process that reads a configuration.
 *
 * @module
 */
import { didYouMean } from "../../../base/did_you_mean.ts";
import { InputError } from "../../../base/errors.ts";
import { isPlugin, type PluginModule } from "../../../registry/exported_plugins.ts";
import { definers } from "../../../registry/kinds/mod.ts";
import type { Configuration } from "../config_file.ts";
import { serve } from "./port.ts";

/** Tells what the module of a configuration says, and ends the process. */
export function main([config]: readonly [PluginModule]): Promise<never> {
  return serve(async (_order, port) => {
    const { path, load } = config;
    let module: object;
    try {
      module = await load();
    } catch (error) {
      const why = error instanceof Error ? error.message : error;
      throw new InputError(`cannot be run: ${why}`, { where: path });
    }
    port.say({ type: "answer", value: describeConfig(module, path) });
  });
}

const HINT = 'Write `export default defineConfig({ plugins: ["./my_loss.ts"] });`.';

/**
 * What a configuration's module says.
 *
 * @throws {InputError} it is no configuration
 */
export function describeConfig(module: object, path: string): Configuration {
  const wrong = (message: string, hint = HINT) => new InputError(message, { where: path, hint });
  const config: unknown = "default" in module ? module.default : undefined;
  if (typeof config !== "object" || config === null || Array.isArray(config) || isPlugin(config)) {
    throw wrong("exports no configuration as its default");
  }
  const unknown = Object.keys(config).find((key) => key !== "plugins");
  if (unknown !== undefined) {
    throw wrong(`there is no setting "${unknown}"${didYouMean(unknown, ["plugins"])}`);
  }
  const plugins: unknown = "plugins" in config ? config.plugins : [];
  if (!Array.isArray(plugins)) throw wrong("plugins must be a list");
  const odd = plugins.findIndex((entry) => typeof entry !== "string" && !isPlugin(entry));
  if (odd >= 0) {
    throw wrong(
      `plugins.${odd} is neither a plugin nor the name of a file or package`,
      `A plugin is what ${definers()} returns.`,
    );
  }
  return {
    names: plugins.filter((entry) => typeof entry === "string"),
    hasOwn: plugins.some((entry) => typeof entry !== "string"),
  };
}
