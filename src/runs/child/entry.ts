/**
 * A generated module as the entry of a process, such that it and all it imports mean this copy of Limbeck: with an import map, a copy of
 * the lock file, and what it needs in Deno's cache.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import project from "../../../deno.json" with { type: "json" };
import { InputError, LimbeckError } from "../../base/errors.ts";
import { unreadable } from "../../formats/files.ts";
import { askDeno } from "./ask_deno.ts";
import { importName, isPackage } from "./plugin_source.ts";
import type { ProviderNeeds } from "./provider/needs.ts";

/** How to run a generated module. */
export interface PreparedEntry {
  /** Flags of `deno` that decide what modules mean. */
  flags: string[];
  entry: string;
  /** The module that lists the plugins. */
  plugins: string;
}

const root = new URL("../../../", import.meta.url);

/** How long modules that were fetched are taken to be in Deno's cache, ms: someone might clean it. */
const FETCHED_FOR = 10 * 60_000;

/** When this process last fetched the modules of an entry without plugins, by its source, ms of `performance.now()`. */
const fetchedAt = new Map<string, number>();

/**
 * Writes a module with its import map and lock file, and fetches what it imports into Deno's cache, unless this process did just that a
 * few minutes ago.
 *
 * @param source what it does; it may import the list `plugins` of {@linkcode PluginModule} from "./plugins.ts"
 * @param plugins absolute paths, and packages with their version
 * @param provider where it has WebGPU from, unless the runtime's own does
 * @throws {InputError} a plugin that is not there or cannot be loaded
 * @throws {LimbeckError} Limbeck itself cannot be loaded
 */
export async function prepareEntry(
  folder: string,
  source: string,
  plugins: readonly string[],
  provider?: ProviderNeeds,
): Promise<PreparedEntry> {
  for (const path of plugins.filter((plugin) => !isPackage(plugin))) {
    await Deno.stat(path).catch((cause) => {
      throw unreadable(path, cause);
    });
  }
  await Deno.mkdir(folder, { recursive: true });
  const paths = ["entry.ts", "plugins.ts", "import_map.json", "deno.lock"].map((name) => join(folder, name));
  const [entry, list, importMap, lock] = paths as [string, string, string, string];
  const imports = { ...project.imports, ...ownModules() };
  await Deno.writeTextFile(entry, (provider?.source ?? "") + source);
  await Deno.writeTextFile(list, pluginList(plugins));
  await Deno.writeTextFile(importMap, JSON.stringify({ imports }, null, 2) + "\n");
  await copyLockFile(lock, provider?.lock);
  const flags = ["--no-config", `--import-map=${importMap}`, `--lock=${lock}`];
  // Most processes are of a few kinds, and to ask once more costs as much as a quarter of their start.
  const text = plugins.length === 0 ? (provider?.source ?? "") + source : undefined;
  const last = text === undefined ? undefined : fetchedAt.get(text);
  if (last === undefined || performance.now() - last > FETCHED_FOR) {
    await fetchModules(flags, entry, plugins);
    if (text !== undefined) fetchedAt.set(text, performance.now());
  }
  return { flags, entry, plugins: list };
}

/**
 * Limbeck's own modules under their published names, so that a plugin anywhere on the disk, or a package that depends on this version,
 * means this copy of the contract.
 */
function ownModules(): Record<string, string> {
  const { name: own, version } = project;
  const packages = [own, ...["", `@${version}`, `@^${version}`].map((range) => `jsr:${own}${range}`)];
  return Object.fromEntries(
    Object.entries(project.exports).flatMap(([name, file]) =>
      packages.map((published) => [`${published}${name.slice(1)}`, new URL(file, root).href])
    ),
  );
}

/**
 * Source of a list of plugin modules that are still to be loaded. They are imported by literal names: a computed one would need
 * permission to read, and could be chosen at run time.
 */
function pluginList(plugins: readonly string[]): string {
  const items = plugins.map((path) =>
    `  { path: ${JSON.stringify(path)}, load: () => import(${JSON.stringify(importName(path))}) },\n`
  );
  return `export const plugins = [\n${items.join("")}];\n`;
}

/**
 * The run gets a copy of the project's lock file, to which packages of plugins may be added. A project read over HTTPS has none.
 *
 * @param further a lock file whose packages it is to know too
 */
async function copyLockFile(copy: string, further?: string): Promise<void> {
  if (root.protocol !== "file:") return;
  try {
    const own = await Deno.readTextFile(new URL("deno.lock", root));
    await Deno.writeTextFile(copy, further === undefined ? own : mergedLocks(own, further));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/**
 * The child has no network, so everything it imports must lie in the cache before. Plugins are named too: where the list of them cannot
 * load one, Deno would leave that to whoever uses the list.
 */
async function fetchModules(flags: string[], entry: string, plugins: readonly string[]): Promise<void> {
  const hasPlugins = plugins.length > 0;
  const frozen = hasPlugins || root.protocol !== "file:" ? [] : ["--frozen"];
  const { success, stderr } = await askDeno([
    "cache",
    "--quiet",
    ...flags,
    ...frozen,
    entry,
    ...plugins.map(importName),
  ]);
  if (success) return;
  const said = stderr.replace(/^error: /, "");
  if (!hasPlugins) {
    throw new LimbeckError(`the process cannot be loaded: ${said}`, {
      hint: "Packages that are not in Deno's cache need a network connection once.",
    });
  }
  throw new InputError(`a plugin cannot be loaded: ${said}`, {
    hint:
      "Correct the module named there; packages that are not in Deno's cache need a network connection once.",
  });
}

/** A lock file with the packages of another beside its own. */
function mergedLocks(own: string, other: string): string {
  type Lock = { specifiers?: Record<string, string>; npm?: Record<string, unknown> };
  const [a, b] = [JSON.parse(own) as Lock, JSON.parse(other) as Lock];
  const merged = { ...a, specifiers: { ...b.specifiers, ...a.specifiers }, npm: { ...b.npm, ...a.npm } };
  return JSON.stringify(merged, null, 2) + "\n";
}
