/**
 * The plugins of a run, for commands that look at what it left.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { PluginModule } from "../../registry/exported_plugins.ts";
import { identifyPlugins } from "../../runs/child/plugin_identity.ts";
import { pluginSource } from "../../runs/child/plugin_source.ts";
import type { RunManifest } from "../../runs/store/run_folder.ts";
import type { Invocation } from "../command.ts";

/**
 * The plugins that the run was made with, wherever they lie now: its values mean something to them alone. A configuration may have
 * others, flags may not.
 *
 * @throws {InputError} `--plugin` names one that the run was made without
 */
export async function runPlugins(
  { plugins: known }: RunManifest,
  { flags, plugins: given = [] }: Invocation,
): Promise<PluginModule[]> {
  const flagged = flags.list("plugin").map((name) => pluginSource(name, Deno.cwd()));
  const identified = await identifyPlugins(given.map(({ path }) => path));
  return given.filter(({ path }, i) => {
    if (known.some((plugin) => plugin.sha256 === identified[i]!.sha256)) return true;
    if (!flagged.includes(path)) return false;
    throw new InputError("is no plugin that the run was made with", {
      where: path,
      hint: known.length > 0
        ? `It was made with ${known.map((plugin) => plugin.path).join(", ")}, as they were then.`
        : "It was made without plugins: leave --plugin out.",
    });
  });
}
