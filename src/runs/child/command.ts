/**
 * How the training process is started: a generated entry, an import map, a copy of the lock file, and no more permissions than the run
 * needs. It may read the models and the data and write its own folder; no network, no environment, no subprocess, no FFI.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import project from "../../../deno.json" with { type: "json" };
import type { Recipe } from "../../distill/recipe/recipe.ts";
import { InputError, LimbeckError } from "../../base/errors.ts";
import { unreadable, unwritable } from "../../formats/files.ts";
import { importName } from "./plugin_source.ts";
import { recipePaths } from "../../distill/recipe/recipe_paths.ts";

/** What decides how a child is started. */
export interface ChildOptions {
  /** The run's folder, absolute. */
  folder: string;
  /** What it names may be read. */
  recipe?: Recipe;
  /** Further files and folders that may be read. */
  read?: readonly string[];
  /** Plugin modules: absolute paths, and packages with their version. */
  plugins: readonly string[];
  /** Module that exports `main(plugins)`; the trainer's own by default. */
  entry?: string;
  /** Most memory of the JavaScript heap, MiB. Weights and buffers lie outside of it. */
  heapMegabytes?: number;
}

/** Arguments of `deno` for a child. */
export interface ChildCommand {
  args: string[];
  env: Record<string, string>;
}

const root = new URL("../../../", import.meta.url);

/**
 * Writes `child/` in the run's folder, fetches what the modules need into Deno's cache, and returns how to start the child.
 *
 * @throws {InputError} a model or data path that does not exist, a path with a comma, or a plugin that cannot be loaded
 */
export async function prepareChild(options: ChildOptions): Promise<ChildCommand> {
  const folder = join(options.folder, "child");
  const mayAddPackages = options.plugins.length > 0 || root.protocol !== "file:";
  const { modules, entry } = await prepareEntry(folder, entrySource(options), mayAddPackages);

  const read = await readPaths(options);
  const write = [await Deno.realPath(options.folder), ...await cacheFolder(options)];
  for (const path of [...read, ...write]) {
    if (!path.includes(",")) continue;
    throw new InputError("has a comma in its path, which permissions of a process cannot express", {
      where: path,
      hint: "Rename it, or reach it through a folder without a comma in its name.",
    });
  }
  return {
    args: [
      "run",
      "--quiet",
      "--no-prompt",
      ...modules,
      "--frozen",
      "--cached-only",
      `--v8-flags=--max-old-space-size=${options.heapMegabytes ?? 4096}`,
      `--allow-read=${[...read, ...write].join(",")}`,
      `--allow-write=${write.join(",")}`,
      "--allow-sys=statfs,systemMemoryInfo",
      entry,
    ],
    // What it prints goes into a file.
    env: { ...driverEnvironment(folder), NO_COLOR: "1" },
  };
}

/** A generated module, and the flags that make it and all it imports mean this copy of Limbeck. */
export interface PreparedEntry {
  modules: string[];
  entry: string;
}

/**
 * Writes a generated module with its import map and lock file, and fetches what it imports into Deno's cache.
 *
 * @throws {LimbeckError} a module that cannot be loaded; an {@linkcode InputError} where it can be a plugin
 */
export async function prepareEntry(
  folder: string,
  source: string,
  mayAddPackages: boolean,
): Promise<PreparedEntry> {
  await Deno.mkdir(folder, { recursive: true });
  const entry = join(folder, "entry.ts");
  await Deno.writeTextFile(entry, source);
  const importMap = join(folder, "import_map.json");
  await Deno.writeTextFile(
    importMap,
    JSON.stringify({ imports: { ...project.imports, ...ownModules() } }, null, 2) + "\n",
  );
  const lock = join(folder, "deno.lock");
  await copyLockFile(lock);
  const modules = ["--no-config", `--import-map=${importMap}`, `--lock=${lock}`];
  await fetchModules(modules, entry, mayAddPackages);
  return { modules, entry };
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
export function pluginList(plugins: readonly string[]): string {
  const items = plugins.map((path) =>
    `  { path: ${JSON.stringify(path)}, load: () => import(${JSON.stringify(importName(path))}) },\n`
  );
  return `[\n${items.join("")}]`;
}

function entrySource({ plugins, entry }: ChildOptions): string {
  const trainer = entry ?? new URL("./train_entry.ts", import.meta.url).href;
  return [
    `import { main } from ${JSON.stringify(trainer)};`,
    `await main(${pluginList(plugins)});`,
    "",
  ].join("\n");
}

/** The run gets a copy of the project's lock file, to which packages of plugins may be added. A project read over HTTPS has none. */
async function copyLockFile(copy: string): Promise<void> {
  if (root.protocol !== "file:") return;
  try {
    await Deno.writeTextFile(copy, await Deno.readTextFile(new URL("deno.lock", root)));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** The child has no network, so everything it imports must lie in the cache before. Also finds plugins that do not parse. */
async function fetchModules(modules: string[], entry: string, mayAddPackages: boolean): Promise<void> {
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["cache", "--quiet", ...modules, ...(mayAddPackages ? [] : ["--frozen"]), entry],
    stdin: "null",
    stdout: "null",
    stderr: "piped",
    env: { NO_COLOR: "1", RUST_BACKTRACE: "0" },
  }).output();
  if (success) return;
  const said = new TextDecoder().decode(stderr).trim().replace(/^error: /, "");
  if (!mayAddPackages) {
    throw new LimbeckError(`the process cannot be loaded: ${said}`, {
      hint: "Packages that are not in Deno's cache need a network connection once.",
    });
  }
  throw new InputError(`a plugin cannot be loaded: ${said}`, {
    hint:
      "Correct the module named there; packages that are not in Deno's cache need a network connection once.",
  });
}

/**
 * Files and folders the child may read, with links resolved, and as they were written where that differs. Permissions follow links
 * inside a folder, so the folders of a Hugging Face cache work.
 */
async function readPaths({ recipe, read = [] }: ChildOptions): Promise<string[]> {
  const paths = new Set<string>();
  for (const path of [...read, ...(recipe ? recipePaths(recipe).map(({ path }) => path) : [])]) {
    paths.add(path);
    try {
      paths.add(await Deno.realPath(path));
    } catch (cause) {
      throw unreadable(path, cause);
    }
  }
  return [...paths];
}

/** The folder of caches that runs share, if the recipe names one; made here, because the child may only write inside of it. */
async function cacheFolder({ recipe }: ChildOptions): Promise<string[]> {
  const folder = recipe?.teacher.cache?.folder;
  if (folder === undefined) return [];
  try {
    await Deno.mkdir(folder, { recursive: true });
  } catch (error) {
    throw unwritable(folder, error);
  }
  return [...new Set([folder, await Deno.realPath(folder)])];
}

/**
 * What drivers want of the environment, as far as the user has not chosen it: a runtime folder, without which Vulkan drivers complain,
 * and no OpenGL, on which a kernel can take minutes to compile.
 */
export function driverEnvironment(runtimeFolder: string): Record<string, string> {
  const wanted = { XDG_RUNTIME_DIR: runtimeFolder, DENO_WEBGPU_BACKEND: "vulkan,metal,dx12" };
  return Object.fromEntries(Object.entries(wanted).filter(([name]) => !isSet(name)));
}

function isSet(name: string): boolean {
  try {
    return Boolean(Deno.env.get(name));
  } catch {
    // Without the permission to look.
    return name === "XDG_RUNTIME_DIR";
  }
}
