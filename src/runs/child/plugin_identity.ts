/**
 * What tells whether a plugin module is still what it was when a run began.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { createHash } from "node:crypto";
import { InputError, LimbeckError } from "../../base/errors.ts";
import { prepareEntry } from "./entry.ts";
import { isPackage } from "./plugin_source.ts";

/** A plugin module: the absolute path of a file, or a package with its version; and the hash of what it holds. */
export interface IdentifiedPlugin {
  path: string;
  /** SHA-256, hex: of a file's bytes, or of the registry's own hash of a package, as a lock file has it. */
  sha256: string;
}

/**
 * Plugin modules with their hashes. Packages are fetched into Deno's cache for that, as a run has no network.
 *
 * @throws {InputError} a file that cannot be read, or a package that cannot be fetched
 */
export async function identifyPlugins(paths: readonly string[]): Promise<IdentifiedPlugin[]> {
  const packages = await packageHashes(paths.filter(isPackage));
  return await Promise.all(
    paths.map(async (path) => ({ path, sha256: packages.get(path) ?? await fileHash(path) })),
  );
}

/**
 * Checks that plugin modules are what they were.
 *
 * @throws {InputError} one that is gone or changed
 */
export async function checkPlugins(plugins: readonly IdentifiedPlugin[]): Promise<void> {
  const now = await identifyPlugins(plugins.map(({ path }) => path));
  for (const [i, { path, sha256 }] of plugins.entries()) {
    if (now[i]!.sha256 === sha256) continue;
    throw new InputError("the plugin is not what it was when the run began", {
      where: path,
      hint: "Put the old version back to resume, or begin a new run.",
    });
  }
}

async function fileHash(path: string): Promise<string> {
  try {
    return createHash("sha256").update(await Deno.readFile(path)).digest("hex");
  } catch (cause) {
    throw new InputError("the plugin cannot be read", { where: path, hint: "Check its path.", cause });
  }
}

/** What a lock file says of packages. */
interface LockFile {
  /** The version behind a specifier. An npm package's may have those of its peers behind it. */
  specifiers?: Record<string, string>;
  npm?: Record<string, { integrity?: string }>;
  jsr?: Record<string, { integrity?: string }>;
}

/** Hashes of packages, from the lock file that Deno writes when it fetches them. */
async function packageHashes(packages: readonly string[]): Promise<Map<string, string>> {
  if (packages.length === 0) return new Map();
  const folder = await Deno.makeTempDir({ prefix: "limbeck-packages-" });
  try {
    await prepareEntry(folder, 'import "./plugins.ts";\n', packages);
    const lock: LockFile = JSON.parse(await Deno.readTextFile(join(folder, "deno.lock")));
    return new Map(packages.map((name) => [name, hashInLock(name, lock)]));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function hashInLock(name: string, lock: LockFile): string {
  // Without an entry of the package, such as /losses in npm:@ada/losses@1.2.3/losses.
  const specifier = /^(?:npm|jsr):(?:@[^/]+\/)?[^/]+/.exec(name)![0];
  const [registry, id] = [specifier.slice(0, 3) as "npm" | "jsr", specifier.slice(4)];
  const version = lock.specifiers?.[specifier];
  const integrity = lock[registry]?.[`${id.slice(0, id.lastIndexOf("@"))}@${version}`]?.integrity;
  if (integrity === undefined) {
    throw new LimbeckError(`${name}: the registry gave no hash of the package`, {
      hint: "Without it, no run could tell whether the package has changed. Use a copy of its file instead.",
    });
  }
  return createHash("sha256").update(integrity).digest("hex");
}
