/**
 * What a plugin is, as a string that changes when its behaviour may: kept in a run's manifest, and compared on resume.
 *
 * @module
 */
import { z } from "zod";
import type { Controller } from "../losses/contract.ts";
import type { AnyPlugin, Kind } from "./kind.ts";
import { kindOf, KINDS } from "./kinds/mod.ts";

/**
 * Version, schema, the text of every function of a plugin, and the expressions, WGSL or operations it makes. The caller hashes it if it must
 * be short.
 *
 * The text of a function does not show what it calls; the expressions do.
 *
 * @param options What to make expressions or WGSL with; the plugin's defaults when absent
 */
export function pluginIdentity(
  plugin: AnyPlugin,
  options?: Readonly<Record<string, unknown>>,
  kinds: readonly Kind[] = KINDS,
): string {
  const { furtherOptions = {}, apart = [] } = kindOf(plugin, kinds) ?? {};
  const own = Object.entries(plugin).filter(([key]) => !apart.includes(key));
  const parts: [string, unknown][] = own.map(([key, value]) => [
    key,
    key === "options" || key in furtherOptions
      ? z.toJSONSchema(value, { unrepresentable: "any", io: "input" })
      : key === "controller"
      ? controllerText(value as Controller)
      : textOf(value),
  ]);
  parts.push(["made", computed(plugin, options, kinds)]);
  return JSON.stringify(parts.sort(([a], [b]) => (a < b ? -1 : 1)));
}

function textOf(value: unknown): unknown {
  return typeof value === "function" ? String(value) : value;
}

function controllerText({ measures = [], ...parts }: Controller): unknown {
  return [
    ...Object.entries(parts).map(([name, part]) => [name, textOf(part)]),
    ...measures.map((loss) => pluginIdentity(loss)),
  ];
}

/** What it computes; nothing where its options have no defaults. */
function computed(
  plugin: AnyPlugin,
  given: Readonly<Record<string, unknown>> | undefined,
  kinds: readonly Kind[],
): string | undefined {
  const options = given ?? plugin.options.safeParse({}).data;
  return options && kindOf(plugin, kinds)?.computes?.(plugin, options);
}
