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
  /** What recipes call it, such as `loss` or `adapter`; null where its kind is not known. */
  role: string | null;
  version: string;
  contract: number;
  description: string | null;
  source: string | null;
  /** JSON Schema; null where the options are no schema. */
  options: Record<string, unknown> | null;
  /** Options that a schedule may change at every step. */
  scheduled: string[];
  /** Options of something else, such as of each parent of a merge, by the field that has them. */
  furtherOptions: Record<string, FurtherOptions>;
}

/** Options that are not the plugin's own. */
export interface FurtherOptions {
  /** Whose they are: `of each parent`. */
  about: string;
  /** JSON Schema; null where the options are no schema. */
  schema: Record<string, unknown> | null;
}

/**
 * Describes a plugin, however broken it is.
 *
 * @param kinds The kinds there are; Limbeck's own when absent
 */
export function describePlugin(plugin: AnyPlugin, kinds?: readonly Kind[]): PluginDescription {
  const { id, kind, version, contract, description, source } = plugin;
  const known = kindOf(plugin, kinds);
  return {
    id: String(id),
    kind: String(kind),
    role: known?.role ?? null,
    version: String(version),
    contract: Number(contract),
    description: description ?? null,
    source: source ?? null,
    options: jsonSchema(plugin.options),
    scheduled: [...plugin.scheduled ?? []],
    furtherOptions: Object.fromEntries(
      Object.entries(known?.furtherOptions ?? {}).map(([field, about]) => [
        field,
        { about, schema: jsonSchema(Reflect.get(plugin, field)) },
      ]),
    ),
  };
}

/** Null where it is no schema: the check says so. */
function jsonSchema(schema: z.ZodType): PluginDescription["options"] {
  try {
    return z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }) as PluginDescription["options"];
  } catch {
    return null;
  }
}
