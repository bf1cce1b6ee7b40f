/**
 * A command once more, in another process: one into which plugin modules are imported by name, since a package that this process imported
 * itself would go into the lock file of the project; or one that may load the library of a GPU provider.
 *
 * @module
 */
import project from "../../../deno.json" with { type: "json" };
import type { ProviderId } from "../../gpu/provider.ts";
import type { PluginModule } from "../../registry/exported_plugins.ts";
import { prepareEntry } from "../../runs/child/entry.ts";
import { providerNeeds } from "../../runs/child/provider/needs.ts";

/**
 * Runs a command once more in a process of its own.
 *
 * @returns its exit code
 * @throws {DeviceError} the provider is not installed
 */
export async function runElsewhere(
  argv: readonly string[],
  plugins: readonly PluginModule[],
  provider: ProviderId,
): Promise<number> {
  const folder = await Deno.makeTempDir({ prefix: "limbeck-command-" });
  try {
    const source = [
      `import { main } from ${JSON.stringify(new URL("../main.ts", import.meta.url).href)};`,
      'import { plugins } from "./plugins.ts";',
      `Deno.exit(await main(${JSON.stringify(argv)}, undefined, plugins));`,
      "",
    ];
    const modules = plugins.map(({ path }) => path);
    const needs = await providerNeeds(provider);
    const { flags, entry } = await prepareEntry(folder, source.join("\n"), modules, needs);
    const args = ["run", "--quiet", "--no-prompt", ...flags, ...permissions(), ...needs.permissions, entry];
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
