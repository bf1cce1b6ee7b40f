/**
 * What a process needs to work with an implementation of WebGPU that the runtime has not: an entry that imports its package, a lock file
 * that knows the package, and leave to load that one library.
 *
 * @module
 */
// @ts-types="../../../../types/std_path.d.ts"
import { join } from "@std/path";
import { DeviceError } from "../../../base/errors.ts";
import { isFile } from "../../../formats/files.ts";
import { GPU_PROVIDERS, type ProviderId } from "../../../gpu/provider.ts";
import { askDeno } from "../ask_deno.ts";

/** What a process needs for a provider. */
export interface ProviderNeeds {
  /** What its entry does before all else. */
  readonly source: string;
  /** Lock file of the provider's package; absent where it has none. */
  readonly lock?: string;
  /** Permissions. */
  readonly permissions: readonly string[];
}

/**
 * What a process needs for a provider.
 *
 * @throws {DeviceError} its package is not installed, or has no library for this machine
 */
export async function providerNeeds(id: ProviderId): Promise<ProviderNeeds> {
  const { package: name } = GPU_PROVIDERS[id];
  if (name === undefined) return { source: "", permissions: [] };
  const module = new URL("../../../gpu/provider.ts", import.meta.url).href;
  return {
    source: `import { useProvider } from ${JSON.stringify(module)};\n` +
      `useProvider(${JSON.stringify(id)}, () => import(${JSON.stringify(name)}));\n`,
    lock: await Deno.readTextFile(new URL("dawn.lock", import.meta.url)),
    // No other: whoever may load any library may do anything.
    permissions: [`--allow-ffi=${await findLibrary(id, name)}`],
  };
}

/** Where in the package the library for a machine lies, by Deno's names of systems and processors. */
const LIBRARIES: Readonly<Record<string, string>> = {
  "linux x86_64": "linux-x64",
  "linux aarch64": "linux-arm64",
  "darwin x86_64": "darwin-universal",
  "darwin aarch64": "darwin-universal",
  "windows x86_64": "win32-x64",
  "windows aarch64": "win32-arm64",
};

const found = new Map<ProviderId, string>();

/** Looks where Deno keeps packages, without fetching anything. */
async function findLibrary(id: ProviderId, name: string): Promise<string> {
  const known = found.get(id);
  if (known !== undefined) return known;
  const { title } = GPU_PROVIDERS[id];
  const { os, arch } = Deno.build;
  const kind = LIBRARIES[`${os} ${arch}`];
  if (kind === undefined) {
    throw new DeviceError(`${title} has no library for ${os} on ${arch}`, {
      hint: "Work without --provider.",
    });
  }
  const { stdout } = await askDeno(["info", "--json", "--no-config"]);
  const { npmCache } = JSON.parse(stdout) as { npmCache: string };
  const [, library, version] = /^npm:(.+)@(.+)$/.exec(name)!;
  for (const registry of await folders(npmCache)) {
    const path = join(npmCache, registry, library!, version!, "dist", kind, "dawn.node");
    if (!await isFile(path)) continue;
    found.set(id, path);
    return path;
  }
  throw new DeviceError(`${title} is not installed: it is the package ${name}`, {
    hint:
      `\`deno cache --no-config ${name}\` fetches it once, 130 MB with libraries for all kinds of machines; \`--provider native\` does without it.`,
  });
}

async function folders(path: string): Promise<string[]> {
  try {
    return (await Array.fromAsync(Deno.readDir(path))).filter((e) => e.isDirectory).map((e) => e.name).sort();
  } catch {
    return [];
  }
}
