/**
 * Which plugins a command is to know: those of the configuration, and those of `--plugin`.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { resolve } from "@std/path";
import project from "../../../deno.json" with { type: "json" };
import { exists } from "../../formats/files.ts";
import { prepareEntry } from "../../runs/child/entry.ts";
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

/**
 * Runs a command once more, in a process into which the plugin modules are imported by name: a package that this process imported
 * itself would go into the lock file of the project.
 *
 * @returns its exit code
 */
export async function runWithPackages(
  argv: readonly string[],
  plugins: readonly PluginModule[],
): Promise<number> {
  const folder = await Deno.makeTempDir({ prefix: "limbeck-command-" });
  try {
    const source = [
      `import { main } from ${JSON.stringify(new URL("../main.ts", import.meta.url).href)};`,
      'import { plugins } from "./plugins.ts";',
      `Deno.exit(await main(${JSON.stringify(argv)}, undefined, plugins));`,
      "",
    ];
    const { flags, entry } = await prepareEntry(folder, source.join("\n"), plugins.map(({ path }) => path));
    const args = ["run", "--quiet", "--no-prompt", ...flags, ...permissions(), entry];
    const process = new Deno.Command(Deno.execPath(), { args }).spawn();
    using _signals = passSignals(process);
    return (await process.status).code;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** What signals mean is decided in the other process. Ctrl-C reaches both by itself. */
function passSignals(process: Deno.ChildProcess): Disposable {
  const passed: Deno.Signal[] = Deno.build.os === "windows" ? [] : ["SIGTERM", "SIGHUP"];
  const listeners: [Deno.Signal, () => void][] = [
    ["SIGINT", () => {}],
    ...passed.map((signal): [Deno.Signal, () => void] => [signal, () => process.kill(signal)]),
  ];
  for (const [signal, listener] of listeners) Deno.addSignalListener(signal, listener);
  return {
    [Symbol.dispose]() {
      for (const [signal, listener] of listeners) Deno.removeSignalListener(signal, listener);
    },
  };
}

/** Those of the task `limbeck`. */
function permissions(): string[] {
  const all = project.tasks.limbeck.command.match(/--allow-(?:read|write|env|sys|net)(?:=\S+)?/g) ?? [];
  return [...all, `--allow-run=${Deno.execPath()},/usr/bin/apt-get`];
}
