/**
 * How a child process is started: a generated entry with its modules, and no more permissions than its work needs. It may read the
 * models and the data and write its own folder; no network, no environment, no subprocess, and no FFI but of a GPU provider that was asked for.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import type { Recipe } from "../../distill/recipe/recipe.ts";
import { cachesOf } from "../../distill/recipe/teachers.ts";
import { InputError } from "../../base/errors.ts";
import { unreadable, unwritable } from "../../formats/files.ts";
import { blobsAt } from "../../hub/hub_cache.ts";
import { datasetFiles } from "../../text/read/files.ts";
import { inputPaths } from "../../distill/recipe/paths.ts";
import type { ProviderId } from "../../gpu/provider.ts";
import { prepareEntry } from "./entry.ts";
import { refuseForeignFiles } from "./foreign_files.ts";
import { providerNeeds } from "./provider/needs.ts";

/** What decides how a child is started. */
export interface ChildNeeds {
  /** A folder of its own, absolute. */
  folder: string;
  /** Module that exports `main(plugins)`. */
  entry: string;
  /** Plugin modules: absolute paths, and packages with their version. */
  plugins?: readonly string[];
  /** What it names may be read. */
  recipe?: Recipe;
  /** Further files and folders that may be read. */
  read?: readonly string[];
  /** A folder that runs share and it may write; made where it is not there. */
  shares?: string;
  /** Where it has WebGPU from; the runtime's own by default. */
  provider?: ProviderId;
  /** It may read and write nothing, not even in its folder. */
  touchesNothing?: boolean;
  /** Most memory of the JavaScript heap, MiB (default 4096). Weights and buffers lie outside of it. */
  heapMegabytes?: number;
}

/** Arguments of `deno` for a child. */
export interface ChildCommand {
  args: string[];
  env: Record<string, string>;
}

/**
 * Writes `child/` in the child's folder, fetches what its modules need into Deno's cache, and returns how to start it.
 *
 * @throws {InputError} a model or data path that does not exist, a path with a comma, or a plugin that cannot be loaded or imports files
 * that it may not read
 * @throws {DeviceError} the GPU provider is not installed
 */
export async function prepareChild(needs: ChildNeeds): Promise<ChildCommand> {
  const folder = join(needs.folder, "child");
  const { plugins = [], entry: main, heapMegabytes = 4096, touchesNothing } = needs;
  const source = `import { main } from ${JSON.stringify(main)};\nimport { plugins } from "./plugins.ts";\n` +
    "await main(plugins);\n";
  const provider = await providerNeeds(needs.provider ?? "native");
  const prepared = await prepareEntry(folder, source, plugins, provider);
  await refuseForeignFiles(prepared, plugins);
  return {
    args: [
      "run",
      "--quiet",
      "--no-prompt",
      ...prepared.flags,
      "--frozen",
      "--cached-only",
      `--v8-flags=--max-old-space-size=${heapMegabytes}`,
      ...(touchesNothing ? [] : await permissions(needs)),
      ...provider.permissions,
      prepared.entry,
    ],
    // What it prints goes into a file.
    env: { ...driverEnvironment(folder), NO_COLOR: "1" },
  };
}

async function permissions(needs: ChildNeeds): Promise<string[]> {
  const read = await readPaths(needs);
  const write = [await Deno.realPath(needs.folder), ...await sharedFolders(needs)];
  for (const path of [...read, ...write]) {
    if (!path.includes(",")) continue;
    throw new InputError("has a comma in its path, which permissions of a process cannot express", {
      where: path,
      hint: "Rename it, or reach it through a folder without a comma in its name.",
    });
  }
  return [
    `--allow-read=${[...read, ...write].join(",")}`,
    `--allow-write=${write.join(",")}`,
    "--allow-sys=statfs,systemMemoryInfo",
  ];
}

/**
 * Files and folders the child may read, with links resolved, and as they were written where that differs; of models in a Hugging Face
 * cache, whose files are links, the blobs too.
 */
async function readPaths({ recipe, read = [] }: ChildNeeds): Promise<string[]> {
  const paths = new Set<string>();
  for (const path of [...read, ...(recipe ? await recipeFiles(recipe) : [])]) {
    paths.add(path);
    try {
      paths.add(await Deno.realPath(path));
      for (const blob of await blobsAt(path)) paths.add(blob);
    } catch (cause) {
      throw unreadable(path, cause);
    }
  }
  return [...paths];
}

/** The files and folders that a recipe names; of a dataset in several files, each. */
async function recipeFiles(recipe: Recipe): Promise<string[]> {
  const files = inputPaths(recipe).map(({ of, path }) => of === "dataset" ? datasetFiles(path) : [path]);
  return (await Promise.all(files)).flat();
}

/** Folders that runs share: of caches, where the recipe names one. Made here, because the child may only write inside of them. */
async function sharedFolders({ recipe, shares }: ChildNeeds): Promise<string[]> {
  const named = recipe ? cachesOf(recipe.teacher).map(({ folder }) => folder) : [];
  const folders = [...named, shares].filter((folder) => folder !== undefined);
  const found = new Set<string>();
  for (const folder of folders) {
    try {
      await Deno.mkdir(folder, { recursive: true });
    } catch (error) {
      throw unwritable(folder, error);
    }
    found.add(folder).add(await Deno.realPath(folder));
  }
  return [...found];
}

/**
 * What drivers want of the environment, as far as the user has not chosen it: a runtime folder, without which Vulkan drivers complain,
 * and no OpenGL, on which a kernel can take minutes to compile.
 *
 * @param chosen what the user has set; this process's own environment by default
 */
export function driverEnvironment(
  runtimeFolder: string,
  chosen: Pick<Deno.Env, "get"> = Deno.env,
): Record<string, string> {
  const wanted = { XDG_RUNTIME_DIR: runtimeFolder, DENO_WEBGPU_BACKEND: "vulkan,metal,dx12" };
  return Object.fromEntries(Object.entries(wanted).filter(([name]) => !isSet(name, chosen)));
}

function isSet(name: string, chosen: Pick<Deno.Env, "get">): boolean {
  try {
    return Boolean(chosen.get(name));
  } catch {
    // Without the permission to look.
    return name === "XDG_RUNTIME_DIR";
  }
}
