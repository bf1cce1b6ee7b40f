/**
 * Looks at plugins in a process of its own, which may read and write nothing and is ended when it hangs.
 *
 * @module
 */
import { LimbeckError } from "../../base/errors.ts";
import type { CheckResult } from "../../registry/check/check_plugin.ts";
import type { PluginDescription } from "../../registry/plugin_description.ts";
import { type Child, type ChildEnd, errorOf, howItEnded, isTold, withChild } from "./host.ts";
import type { KernelText } from "../../gpu/description.ts";
import { compileWithTint, DAWN } from "./tint.ts";
import type { ToldError } from "./told_error.ts";

/** What the process is to do. */
export interface CheckOrder {
  /** Ids of built-in plugins, instead of files. */
  ids: readonly string[];
  /** Whether to check them, beyond describing them. */
  check: boolean;
  /** Options to check with. */
  options: Readonly<Record<string, unknown>>;
  /** A folder of reference values, absolute, that families are held to; it may be read. */
  reference?: string | undefined;
}

/** What the process says. */
export type CheckMessage =
  | { type: "plugin"; plugin: PluginDescription; module: string | null }
  | { type: "begin"; check: string }
  | { type: "result"; result: CheckResult }
  | { type: "kernels"; kernels: readonly KernelText[] }
  | { type: "end" }
  | ({ type: "error" } & ToldError);

/** A plugin with what came of its checks. */
export interface InspectedPlugin {
  plugin: PluginDescription;
  /** The file or package it comes from; null for built-ins. */
  module: string | null;
  results: CheckResult[];
}

/** Options of {@linkcode inspectPlugins}. */
export interface InspectOptions extends CheckOrder {
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
  last: CheckMessage | undefined;
}

/**
 * Describes plugins, and checks them if asked to. A plugin that hangs, exits or breaks the process gets a failed result that says so.
 *
 * @throws {InputError} a file that is not there
 * @throws {LimbeckError} a module that does not parse, that hangs or throws while it is loaded, or that exports no plugin
 */
export async function inspectPlugins(options: InspectOptions): Promise<InspectedPlugin[]> {
  const { files, ids, check, options: own, reference } = options;
  const order: CheckOrder = { ids, check, options: own, reference };
  const entry = new URL("./inside/check_entry.ts", import.meta.url).href;
  const limits = reference === undefined
    ? { touchesNothing: true, heapMegabytes: 1024 }
    : { read: [reference], heapMegabytes: 1024 };
  return await withChild<CheckMessage, InspectedPlugin[]>(
    { entry, plugins: files, order, ...limits },
    (child) => follow(child, options),
  );
}

async function follow(child: Child<CheckMessage>, options: InspectOptions): Promise<InspectedPlugin[]> {
  const progress: Progress = { found: [], kernels: [], current: undefined, last: undefined };
  child.expect(options.timeoutSeconds);
  for await (const message of child.messages()) {
    if (message.type === "plugin" || message.type === "end") await compileElsewhere(progress, options);
    take(message, progress, options);
  }
  explainEnd(progress, await child.ended, options);
  return progress.found;
}

function take(message: CheckMessage, progress: Progress, options: InspectOptions): void {
  const { found } = progress;
  if (message.type === "plugin") {
    found.push({ plugin: message.plugin, module: message.module, results: [] });
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
  { found, current, last }: Progress,
  end: ChildEnd,
  { files, onResult }: InspectOptions,
): void {
  if (last?.type === "end" && end.success) return;
  const inspected = found.at(-1);
  const told = last && isTold(last) ? last : undefined;
  if (told && !inspected) throw errorOf(told);
  const detail = told?.message ?? `it ${howItEnded(end)}`;
  const hint = told
    ? told.hint
    : end.silentSeconds !== undefined
    ? "Look for an endless loop; `--timeout SECONDS` allows more time where the machine is slow."
    : "A plugin must not end the process, read or write files, or use more memory than there is.";
  const more = hint === undefined ? {} : { hint };
  if (!inspected) {
    const where = files.join(", ") || "built-in plugins";
    throw new LimbeckError(`${where}: while the module was loaded, ${detail}`, more);
  }
  const result: CheckResult = { check: current ?? "after the checks", outcome: "fail", detail, ...more };
  inspected.results.push(result);
  onResult?.(inspected.plugin, result);
}
