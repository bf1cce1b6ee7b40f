/**
 * Which plugins a command is to know: those of the configuration, and those of `--plugin`.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { resolve } from "@std/path";
import { exists } from "../../formats/files.ts";
import { CONFIG_FILE, readConfig } from "../../runs/child/config_file.ts";
import type { PluginModule } from "../../registry/exported_plugins.ts";
import { importName, pluginSource } from "../../runs/child/plugin_source.ts";
import type { Flag, FlagReader } from "../command.ts";

/** Flags of every verb that takes plugins. */
export const PLUGIN_FLAGS: Readonly<Record<string, Flag>> = {
  plugin: {
    value: "FILE|PACKAGE",
    many: true,
    help: "A module with plugins: a file, or a package as npm:NAME@1.2.3",
  },
  config: { value: "FILE", help: `Configuration with plugins (default ${CONFIG_FILE}, where there is one)` },
};

/**
 * Modules of the configuration, then those of the flags, each once.
 *
 * @throws {InputError} a configuration that cannot be read, or a package without its exact version
 */
export async function pluginModules(flags: FlagReader): Promise<PluginModule[]> {
  const named = flags.text("config");
  const config = named ?? (await exists(CONFIG_FILE) ? CONFIG_FILE : undefined);
  const sources = new Set([
    ...(config === undefined ? [] : await readConfig(resolve(config))),
    ...flags.list("plugin").map((name) => pluginSource(name, Deno.cwd())),
  ]);
  return [...sources].map((path) => ({ path, load: () => import(importName(path)) }));
}
