/**
 * The worker of a tab as one file for browsers: the modules of a run as they are, but for the few that stand on what only Deno has.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { join } from "@std/path";
import project from "../../deno.json" with { type: "json" };
import { LimbeckError } from "../base/errors.ts";

const here = (path: string) => new URL(path, import.meta.url).href;

/** What a browser gets in the place of modules and packages. */
const REPLACED: Readonly<Record<string, string>> = {
  [here("../base/system.ts")]: here("./system.ts"),
  [here("../text/read/csv.ts")]: here("./packed_formats.ts"),
  [here("../text/read/unpack.ts")]: here("./packed_formats.ts"),
  "node:crypto": here("./hash.ts"),
  // Paths have slashes there, whatever the browser runs on.
  "@std/path": project.imports["@std/path"].replace("/path/", "/path/posix/"),
  "csv-parse/sync": here("./packed_formats.ts"),
};

/**
 * Bundles the worker, which takes seconds.
 *
 * @param folder Where a file may lie meanwhile
 * @throws {LimbeckError} with what Deno says, where it cannot be made
 */
export async function bundleWorker(folder: string): Promise<string> {
  const config = join(folder, `.tab.${crypto.randomUUID().slice(0, 8)}.json`);
  const absolute = Object.entries(project.imports).map(([name, to]) => [name, to]);
  await Deno.writeTextFile(
    config,
    JSON.stringify({ imports: { ...Object.fromEntries(absolute), ...REPLACED } }),
  );
  try {
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        "bundle",
        "--quiet",
        "--minify",
        "--platform",
        "browser",
        "--no-lock",
        "--no-config",
        "--import-map",
        config,
        here("./worker.ts"),
      ],
      env: { NO_COLOR: "1" },
      stdin: "null",
    }).output();
    if (code === 0) return new TextDecoder().decode(stdout);
    throw new LimbeckError(
      `the page's worker cannot be bundled: ${new TextDecoder().decode(stderr).trim()}`,
      {
        hint:
          "The first time, Deno fetches its bundler and two packages: this machine needs the network for it once.",
      },
    );
  } finally {
    await Deno.remove(config).catch(() => {});
  }
}
