/**
 * Looks at what plugins import before they are run. Permissions decide what a process reads while it runs; what its modules import by
 * literal names is read without being asked for, so that `import key from "/home/ada/.ssh/id_ed25519" with { type: "text" }` would work in
 * a process that may read nothing.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { dirname, fromFileUrl, relative } from "@std/path";
import { InputError, LimbeckError } from "../../base/errors.ts";
import { askDeno } from "./ask_deno.ts";
import type { PreparedEntry } from "./entry.ts";
import { isPackage } from "./plugin_source.ts";

/** What `deno info --json` says of modules, as far as it is wanted. */
interface Graph {
  modules: readonly {
    specifier: string;
    dependencies?: readonly {
      /** Absent where only types are imported. */
      code?: { specifier?: string };
      /** As what a file is imported that is no code: `json`, `text`. */
      assertionType?: string;
    }[];
  }[];
}

/** Files by these names are read as code, of which an importer sees what it exports. */
const CODE = /\.[cm]?[jt]sx?$/;
/** Limbeck's own modules, which import kernels and more. */
const OWN = ["src/", "plugins/", "mod.ts"].map((name) => new URL(`../../../${name}`, import.meta.url).href);

/**
 * Checks that files that plugins import lie where they may: code anywhere, all else in the folder of one of the plugins or below, and not
 * hidden.
 *
 * @throws {InputError} one that does not, and the module that imports it
 */
export async function refuseForeignFiles(
  { flags, plugins: list }: PreparedEntry,
  plugins: readonly string[],
): Promise<void> {
  if (plugins.length === 0) return;
  const files = plugins.filter((path) => !isPackage(path));
  const folders = await Promise.all(files.map(async (path) => dirname(await Deno.realPath(path))));
  for (const { specifier, dependencies = [] } of (await readGraph(flags, list)).modules) {
    if (OWN.some((own) => specifier.startsWith(own))) continue;
    for (const { code, assertionType } of dependencies) {
      const target = code?.specifier;
      if (!target?.startsWith("file:")) continue;
      if (assertionType === undefined && CODE.test(target)) continue;
      const file = await Deno.realPath(fromFileUrl(target)).catch(() => undefined);
      if (file === undefined || folders.some((folder) => liesIn(folder, file))) continue;
      throw new InputError(
        `imports ${fromFileUrl(target)}, which is no code and none of the plugin's own files`,
        {
          where: specifier.startsWith("file:") ? fromFileUrl(specifier) : specifier.slice(0, 80),
          hint:
            "JSON, text and other data may be imported from the plugin's own folder and those below, hidden ones left out.",
        },
      );
    }
  }
}

function liesIn(folder: string, file: string): boolean {
  return !relative(folder, file).split(/[\\/]/).some((part) => part.startsWith("."));
}

async function readGraph(flags: readonly string[], module: string): Promise<Graph> {
  const { success, stdout, stderr } = await askDeno(["info", "--json", ...flags, module]);
  if (success) return JSON.parse(stdout);
  throw new LimbeckError(`what the plugins import cannot be told: ${stderr}`);
}
