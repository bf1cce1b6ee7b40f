/**
 * What can be told of a plugin without running it.
 *
 * @module
 */
import { z } from "zod";
import type { AnyPlugin, Kind } from "./kind.ts";
import { kindOf } from "./kinds/mod.ts";

/** What can be told of a plugin. */
export interface PluginDescription {
  id: string;
  kind: string;
  /** What recipes call it, `loss` or `adapter`; null where its kind is not known. */
  role: string | null;
  version: string;
  contract: number;
  description: string | null;
  source: string | null;
  /** JSON Schema; null where the options are no schema. */
  options: Record<string, unknown> | null;
  /** Options that a schedule may change at every step. */
  scheduled: string[];
}

/**
 * Describes a plugin, however broken it is.
 *
 * @param kinds The kinds there are; Limbeck's own when absent
 */
export function describePlugin(plugin: AnyPlugin, kinds?: readonly Kind[]): PluginDescription {
  const { id, kind, version, contract, description, source } = plugin;
  let options: unknown = null;
  try {
    options = z.toJSONSchema(plugin.options, { io: "input", unrepresentable: "any" });
  } catch {
    // No schema: the check says so.
  }
  return {
    id: String(id),
    kind: String(kind),
    role: kindOf(plugin, kinds)?.role ?? null,
    version: String(version),
    contract: Number(contract),
    description: description ?? null,
    source: source ?? null,
    options: options as PluginDescription["options"],
    scheduled: [...plugin.scheduled ?? []],
  };
}
