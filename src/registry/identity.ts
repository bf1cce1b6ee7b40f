/**
 * What a plugin is, as a string that changes when its behaviour may: kept in a run's manifest, and compared on resume.
 *
 * @module
 */
import { z } from "zod";
import type { Plugin } from "./contract.ts";

/** Version, schema and the text of every function of a plugin. The caller hashes it if it must be short. */
export function pluginIdentity(plugin: Plugin): string {
  const parts: [string, unknown][] = Object.entries(plugin).map(([key, value]) => [
    key,
    key === "options"
      ? z.toJSONSchema(plugin.options, { unrepresentable: "any", io: "input" })
      : typeof value === "function"
      ? String(value)
      : value,
  ]);
  return JSON.stringify(parts.sort(([a], [b]) => (a < b ? -1 : 1)));
}
