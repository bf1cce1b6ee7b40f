/**
 * Reads `limbeck.config.ts`: a program, so it runs in a process that may touch nothing and tells what it exports.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { dirname } from "@std/path";
import { InputError } from "../../base/errors.ts";
import { unreadable } from "../../formats/files.ts";
import { lastWords, withoutPermissions } from "./plugin_check.ts";
import { importName, pluginSource } from "./plugin_source.ts";
import { readLines } from "./training.ts";

/** The configuration that is read without being named, in the folder one calls from. */
export const CONFIG_FILE = "limbeck.config.ts";

/** Longest time a configuration may take. */
const PATIENCE_MS = 60_000;

/** What the process tells: plugins that are named, and whether there are some in the configuration itself. */
export type ConfigMessage = { names: string[]; hasOwn: boolean } | {
  error: string;
  hint?: string | undefined;
};

/**
 * The plugin modules of a configuration: itself, where plugins are written into it, then files and packages that it names.
 *
 * @param path absolute
 * @throws {InputError} no such file, or it is no configuration
 */
export async function readConfig(path: string): Promise<string[]> {
  try {
    await Deno.stat(path);
  } catch (cause) {
    throw unreadable(path, cause);
  }
  const message = await withoutPermissions(entrySource(path), true, (process) => listen(process, path));
  if ("error" in message) throw new InputError(message.error, { where: path, hint: message.hint });
  try {
    const named = message.names.map((name) => pluginSource(name, dirname(path)));
    return [...new Set([...(message.hasOwn ? [path] : []), ...named])];
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    throw new InputError(`plugins: ${error.message}`, { where: path, hint: error.hint, cause: error });
  }
}

function entrySource(path: string): string {
  return [
    `import { tellConfig } from ${JSON.stringify(new URL("./config_entry.ts", import.meta.url).href)};`,
    `await tellConfig(() => import(${JSON.stringify(importName(path))}));`,
    "",
  ].join("\n");
}

async function listen(process: Deno.ChildProcess, path: string): Promise<ConfigMessage> {
  const timer = setTimeout(() => process.kill("SIGKILL"), PATIENCE_MS);
  const stderr = lastWords(process.stderr);
  let message: ConfigMessage | undefined;
  for await (const line of readLines(process.stdout)) {
    try {
      message = JSON.parse(line);
    } catch {
      // Something printed past the console.
    }
  }
  const { signal } = await process.status;
  clearTimeout(timer);
  if (message) return message;
  const words = await stderr;
  throw new InputError(
    signal === "SIGKILL"
      ? `gave no sign of life for ${PATIENCE_MS / 1000} s and was ended`
      : `ended the process before it was read${words ? `:\n${words}` : ""}`,
    { where: path, hint: "A configuration only exports what defineConfig({ plugins: [...] }) returns." },
  );
}
