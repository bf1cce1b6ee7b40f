/**
 * What a plugin is, as a string that changes when its behaviour may: kept in a run's manifest, and compared on resume.
 *
 * @module
 */
import { z } from "zod";
import type { Controller, Plugin } from "./contract.ts";
import { featureProgramText } from "./feature_program.ts";
import { RowProgram, symbolicOptions } from "../losses/row_program.ts";

/**
 * Version, schema, the text of every function of a plugin, and the expressions, WGSL or operations it makes. The caller hashes it if it must
 * be short.
 *
 * The text of a function does not show what it calls; the expressions do.
 *
 * @param options What to make expressions or WGSL with; the plugin's defaults when absent
 */
export function pluginIdentity(plugin: Plugin, options?: Readonly<Record<string, unknown>>): string {
  const parts: [string, unknown][] = Object.entries(plugin).map(([key, value]) => [
    key,
    key === "options"
      ? z.toJSONSchema(plugin.options, { unrepresentable: "any", io: "input" })
      : key === "controller"
      ? controllerText(value as Controller)
      : textOf(value),
  ]);
  parts.push(["made", made(plugin, options)]);
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

/** The expressions of a divergence, the WGSL of a row loss or the operations of a feature loss; nothing where its options have no defaults. */
function made(plugin: Plugin, given?: Readonly<Record<string, unknown>>): string | undefined {
  const options = given ?? plugin.options.safeParse({}).data;
  if (!options) return undefined;
  if (plugin.kind === "divergence") {
    const program = new RowProgram();
    const symbols = symbolicOptions(plugin.scheduled ?? [], options, (name) => name);
    const { value, gradient } = program.trace(plugin, symbols, 0, true);
    const statistics = program.statistics.map((s) => `${s.name} = ${s.kind} ${s.body}`);
    return [...statistics, `value ${value}`, `gradient ${gradient}`].join("\n");
  }
  if (plugin.kind === "row-loss") {
    return plugin.wgsl({ options, scalars: Object.fromEntries((plugin.scheduled ?? []).map((o) => [o, o])) });
  }
  if (plugin.kind === "feature-loss") return featureProgramText(plugin, options);
  return undefined;
}
