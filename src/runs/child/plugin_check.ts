/**
 * Looks at plugins in a process of its own, which may read and write nothing and is ended when it hangs.
 *
 * @module
 */
import { InputError, LimbeckError } from "../../base/errors.ts";
import { unreadable } from "../../formats/files.ts";
import type { CheckResult } from "../../registry/check/check_plugin.ts";
import type { PluginDescription } from "../../registry/plugin_description.ts";
import { driverEnvironment, prepareEntry } from "./command.ts";
import { importName, isPackage } from "./plugin_source.ts";
import { readLines } from "./training.ts";
import type { KernelText } from "../../gpu/description.ts";
import { DAWN } from "./dawn.ts";
import { compileWithTint } from "./tint_process.ts";

/** What the process is to do. */
export interface PluginOrder {
  /** Ids of built-in plugins, instead of files. */
  ids: readonly string[];
  /** Whether to check them, beyond describing them. */
  check: boolean;
  /** Options to check with. */
  options: Readonly<Record<string, unknown>>;
}

/** A line on the process's stdout. */
export type PluginMessage =
  | { type: "plugin"; plugin: PluginDescription; module: number | null }
  | { type: "begin"; check: string }
  | { type: "result"; result: CheckResult }
  | { type: "kernels"; kernels: readonly KernelText[] }
  | { type: "error"; message: string; hint?: string | undefined }
  | { type: "end" };

/** A plugin with what came of its checks. */
export interface InspectedPlugin {
  plugin: PluginDescription;
  /** The file or package it comes from; null for built-ins. */
  module: string | null;
  results: CheckResult[];
}

/** Options of {@linkcode inspectPlugins}. */
export interface InspectOptions extends PluginOrder {
  /** Modules with plugins: absolute paths, and packages with their version. */
  files: readonly string[];
  /** Longest time a single check may take. */
  timeoutSeconds: number;
  /** Told of each result as it comes. */
  onResult?: (plugin: PluginDescription, result: CheckResult) => void;
  /** Told of each plugin before its checks. */
  onPlugin?: (plugin: PluginDescription) => void;
}

/** What was last seen of the process. */
interface Progress {
  readonly found: InspectedPlugin[];
  /** Kernels of the plugin that is looked at. */
  kernels: KernelText[];
  /** The check that has begun and has no result yet. */
  current: string | undefined;
  /** Says that it is done, or why it cannot be. */
  last: PluginMessage | undefined;
  hung: boolean;
}

/**
 * Describes plugins, and checks them if asked to. A plugin that hangs, exits or breaks the process gets a failed result that says so.
 *
 * @throws {InputError} a file that is not there
 * @throws {LimbeckError} a module that does not parse, that hangs or throws while it is loaded, or that exports no plugin
 */
export async function inspectPlugins(options: InspectOptions): Promise<InspectedPlugin[]> {
  for (const path of options.files.filter((file) => !isPackage(file))) {
    try {
      await Deno.stat(path);
    } catch (cause) {
      throw unreadable(path, cause);
    }
  }
  return await withoutPermissions(
    entrySource(options),
    options.files.length > 0,
    (process) => follow(process, options),
  );
}

/**
 * Runs a generated module in a process that may read and write nothing; `use` ends it or waits for its end.
 *
 * @param mayAddPackages whether the module imports what others wrote
 */
export async function withoutPermissions<T>(
  source: string,
  mayAddPackages: boolean,
  use: (process: Deno.ChildProcess) => Promise<T>,
): Promise<T> {
  const folder = await Deno.makeTempDir({ prefix: "limbeck-plugin-" });
  try {
    const { modules, entry } = await prepareEntry(folder, source, mayAddPackages);
    const process = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--quiet",
        "--no-prompt",
        ...modules,
        "--frozen",
        "--cached-only",
        "--v8-flags=--max-old-space-size=1024",
        entry,
      ],
      env: { ...driverEnvironment(folder), NO_COLOR: "1" },
      cwd: folder,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    return await use(process);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Imports are static, and the module that looks at plugins comes first. */
function entrySource({ files, ids, check, options }: InspectOptions): string {
  const order: PluginOrder = { ids, check, options };
  return [
    `import { lookAtPlugins } from ${JSON.stringify(new URL("./check_entry.ts", import.meta.url).href)};`,
    ...files.map((path, i) => `import * as plugin${i} from ${JSON.stringify(importName(path))};`),
    `await lookAtPlugins([${files.map((_, i) => `plugin${i}`).join(", ")}], ${JSON.stringify(order)});`,
    "",
  ].join("\n");
}

async function follow(process: Deno.ChildProcess, options: InspectOptions): Promise<InspectedPlugin[]> {
  const progress: Progress = { found: [], kernels: [], current: undefined, last: undefined, hung: false };
  const kill = () => {
    progress.hung = true;
    process.kill("SIGKILL");
  };
  let timer = setTimeout(kill, options.timeoutSeconds * 1000);
  const stderr = lastWords(process.stderr);
  try {
    for await (const line of readLines(process.stdout)) {
      clearTimeout(timer);
      const message = parse(line);
      if (message?.type === "plugin" || message?.type === "end") await compileElsewhere(progress, options);
      if (message) take(message, progress, options);
      timer = setTimeout(kill, options.timeoutSeconds * 1000);
    }
    const status = await process.status;
    clearTimeout(timer);
    explainEnd(progress, status, await stderr, options);
  } finally {
    clearTimeout(timer);
    try {
      process.kill("SIGKILL");
    } catch {
      // It has ended already.
    }
  }
  return progress.found;
}

/** A message, or undefined for what a plugin wrote to stdout itself. */
function parse(line: string): PluginMessage | undefined {
  try {
    const message = JSON.parse(line);
    return typeof message?.type === "string" ? message : undefined;
  } catch {
    return undefined;
  }
}

function take(message: PluginMessage, progress: Progress, options: InspectOptions): void {
  const { found } = progress;
  if (message.type === "plugin") {
    const module = message.module === null ? null : options.files[message.module]!;
    found.push({ plugin: message.plugin, module, results: [] });
    options.onPlugin?.(message.plugin);
  } else if (message.type === "begin") progress.current = message.check;
  else if (message.type === "result") {
    progress.current = undefined;
    const inspected = found.at(-1)!;
    inspected.results.push(message.result);
    options.onResult?.(inspected.plugin, message.result);
  } else if (message.type === "kernels") progress.kernels.push(...message.kernels);
  else progress.last = message;
}

/** The last check of a plugin, which needs more than it may have: what Tint, the compiler of Chrome and Dawn, says of its kernels. */
async function compileElsewhere(progress: Progress, { onResult }: InspectOptions): Promise<void> {
  const kernels = progress.kernels.splice(0);
  const inspected = progress.found.at(-1);
  if (!inspected || kernels.length === 0) return;
  const check = "kernels compile under Tint";
  const result = await compileWithTint(kernels, { fetch: false }).then(
    (report): CheckResult => {
      if ("unavailable" in report) {
        return {
          check,
          outcome: "skip",
          detail: `Dawn is not installed; \`deno cache ${DAWN}\` installs it`,
        };
      }
      const refused = Object.entries({ ...report.refused, ...report.unproven });
      if (refused.length === 0) return { check, outcome: "pass", detail: `${kernels.length} kernels` };
      return {
        check,
        outcome: "fail",
        detail: refused.map(([label, message]) => `${label}: ${message}`).join("\n"),
        hint: "Chrome and Dawn would refuse the loss: reductions must be called by all lanes together.",
      };
    },
    (error: Error): CheckResult => ({ check, outcome: "skip", detail: error.message.split("\n")[0]! }),
  );
  inspected.results.push(result);
  onResult?.(inspected.plugin, result);
}

/** Turns an end that should not have been into a failed check, or an error where no plugin was seen yet. */
function explainEnd(
  progress: Progress,
  status: Deno.CommandStatus,
  stderr: string,
  { files, timeoutSeconds, onResult }: InspectOptions,
): void {
  const { found, current, last, hung } = progress;
  if (last?.type === "end" && status.success) return;
  const detail = last?.type === "error"
    ? last.message
    : hung
    ? `it gave no sign of life for ${timeoutSeconds} s and was ended`
    : `the process ended ${
      status.signal ? `by ${status.signal}` : `with exit code ${status.code}`
    } in the middle of it${stderr ? `:\n${stderr}` : ""}`;
  const hint = last?.type === "error"
    ? last.hint
    : hung
    ? "Look for an endless loop; `--timeout SECONDS` allows more time where the machine is slow."
    : "A plugin must not end the process, read or write files, or use more memory than there is.";
  const inspected = found.at(-1);
  if (!inspected) {
    const where = files.join(", ") || "built-in plugins";
    if (last?.type === "error") throw new InputError(detail, { where, ...(hint ? { hint } : {}) });
    throw new LimbeckError(`${where}: while the module was loaded, ${detail}`, hint ? { hint } : {});
  }
  const result: CheckResult = {
    check: current ?? "after the checks",
    outcome: "fail",
    detail,
    ...(hint === undefined ? {} : { hint }),
  };
  inspected.results.push(result);
  onResult?.(inspected.plugin, result);
}

/** The end of what a process says on stderr. */
export async function lastWords(stream: ReadableStream<Uint8Array>): Promise<string> {
  const lines: string[] = [];
  for await (const line of readLines(stream)) {
    lines.push(line);
    if (lines.length > 12) lines.shift();
  }
  return lines.join("\n").trim();
}
