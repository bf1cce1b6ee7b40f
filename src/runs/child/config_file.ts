/**
 * Reads `limbeck.config.ts`: a program, so it runs in a process that may touch nothing and tells what it exports.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { dirname } from "@std/path";
import { InputError } from "../../base/errors.ts";
import { type ChildEnd, howItEnded, withChild } from "./host.ts";
import { pluginSource } from "./plugin_source.ts";

/** The configuration that is read without being named, in the folder one calls from. */
export const CONFIG_FILE = "limbeck.config.ts";

/** Longest time a configuration may take. */
const PATIENCE_SECONDS = 60;

/** What is in a configuration: plugins that are named, and whether there are some in the configuration itself. */
export interface Configuration {
  names: string[];
  hasOwn: boolean;
}

/**
 * The plugin modules of a configuration: itself, where plugins are written into it, then files and packages that it names.
 *
 * @param path absolute
 * @throws {InputError} no such file, or it is no configuration
 */
export async function readConfig(path: string): Promise<string[]> {
  const entry = new URL("./inside/config_entry.ts", import.meta.url).href;
  const limits = { touchesNothing: true, heapMegabytes: 1024 };
  const told = await withChild({ entry, plugins: [path], order: null, ...limits }, (child) => {
    child.expect(PATIENCE_SECONDS);
    return child.answer((end) => explainEnd(end, path));
  });
  const { names, hasOwn } = told as Configuration;
  try {
    const named = names.map((name) => pluginSource(name, dirname(path)));
    return [...new Set([...(hasOwn ? [path] : []), ...named])];
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    throw new InputError(`plugins: ${error.message}`, { where: path, hint: error.hint, cause: error });
  }
}

function explainEnd(end: ChildEnd, path: string): InputError {
  return new InputError(`the process that reads it ${howItEnded(end)}`, {
    where: path,
    hint: "A configuration only exports what defineConfig({ plugins: [...] }) returns.",
  });
}
