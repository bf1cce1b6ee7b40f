/**
 * What can be told of a plugin without running it.
 *
 * @module
 */
import { z } from "zod";
import type { Plugin } from "./contract.ts";

/** What can be told of a plugin. */
export interface PluginDescription {
  id: string;
  kind: string;
  version: string;
  contract: number;
  description: string | null;
  source: string | null;
  /** JSON Schema; null where the options are no schema. */
  options: Record<string, unknown> | null;
  /** Options that a schedule may change at every step. */
  scheduled: string[];
}

/** Describes a plugin, however broken it is. */
export function describePlugin(plugin: Plugin): PluginDescription {
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
    version: String(version),
    contract: Number(contract),
    description: description ?? null,
    source: source ?? null,
    options: options as PluginDescription["options"],
    scheduled: "scheduled" in plugin ? [...plugin.scheduled ?? []] : [],
  };
}
