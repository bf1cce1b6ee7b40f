/**
 * `limbeck plugin`
 *
 * @module
 */
// @ts-types="../../../types/std_colors.d.ts"
import { bold, dim, green, red, yellow } from "@std/fmt/colors";
// @ts-types="../../../types/std_path.d.ts"
import { resolve } from "@std/path";
import { didYouMean, oneOf } from "../../base/did_you_mean.ts";
import { InputError, UsageError } from "../../base/errors.ts";
import { isFile, isTaken, writeTextAtomically } from "../../formats/files.ts";
import type { Kind } from "../../registry/kind.ts";
import { KINDS } from "../../registry/kinds/mod.ts";
import type { CheckResult } from "../../registry/check/check_plugin.ts";
import { describePlugin, type PluginDescription } from "../../registry/plugin_description.ts";
import { inspectPlugins } from "../../runs/child/plugin_check.ts";
import { isPackage, pluginSource } from "../../runs/child/plugin_source.ts";
import type { Command, Invocation } from "../command.ts";
import { PLUGIN_FLAGS, pluginModules } from "../setup/plugin_sources.ts";
import { table } from "../terminal/table.ts";
import { builtinRegistry } from "../setup/registry.ts";

const ACTIONS = ["list", "show", "new", "check"];
const NAME = /^[a-z0-9]+(?:-[a-z0-9]+)*$/;
/** What kinds are called where a plugin is begun. */
const BEGINNINGS = KINDS.map(({ template }) => template.name);
const NOTHING = { ids: [], files: [], check: false, options: {}, timeoutSeconds: 60 };

/** Lists, shows, begins and checks plugins. */
export const plugin: Command = {
  name: "plugin",
  usage: "[list [FILE ...] | show PLUGIN | new KIND NAME | check PLUGIN]",
  positional: [0, 100],
  details: "PLUGIN is the id of a built-in plugin, a file, or a package as npm:NAME@1.2.3.\n" +
    `KIND is ${oneOf(KINDS.map(({ template: { name, about } }) => about ? `${name} (${about})` : name))}.\n` +
    "`check` runs the plugin in a process that may touch nothing, and exits with 1 if any check fails.",
  flags: {
    set: { value: "OPTION=VALUE", many: true, help: "An option to check the plugin with" },
    reference: {
      value: "FOLDER",
      help: "What a family is checked against: a small model with its logits, see docs/families.md",
    },
    timeout: { value: "SECONDS", kind: "number", help: "Longest time of a single check (default 60)" },
    config: PLUGIN_FLAGS.config!,
    output: { value: "FILE", help: "File that `new` writes (default ./NAME.ts)" },
  },
  examples: [
    "limbeck plugin list",
    "limbeck plugin show forward-kl",
    "limbeck plugin new loss my-loss",
    "limbeck plugin check ./my-loss.ts",
    "limbeck plugin check ./my-loss.ts --set share=0.3",
    "limbeck plugin check ./my-family.ts --reference ./reference",
  ],
  async run(invocation: Invocation): Promise<number> {
    const [action = "list", ...rest] = invocation.args;
    const wants = (count: number, what: string) => {
      if (rest.length !== count) {
        throw new UsageError(`limbeck plugin ${action} takes ${what}`, {
          hint: "See limbeck plugin --help.",
        });
      }
    };
    switch (action) {
      case "list":
        return await list(rest.map((name) => pluginSource(name, Deno.cwd())), invocation);
      case "show":
        wants(1, "an id or a file");
        return await show(rest[0]!, invocation);
      case "new":
        wants(2, `a kind (${BEGINNINGS.join(", ")}) and a name`);
        return await begin(rest[0]!, rest[1]!, invocation);
      case "check":
        wants(1, "an id or a file");
        return await check(rest[0]!, invocation);
      default:
        throw new UsageError(`there is no "plugin ${action}"${didYouMean(action, ACTIONS)}`, {
          hint: "`limbeck plugin --help` lists what there is.",
        });
    }
  },
};

/** Built-in plugins, and those of some modules; of the configuration's where none are given. */
async function list(given: readonly string[], { flags, out }: Invocation): Promise<number> {
  const files = given.length > 0 ? given : (await pluginModules(flags)).map(({ path }) => path);
  const own = files.length === 0 ? [] : await inspectPlugins({ ...NOTHING, files });
  const all = [
    ...builtinRegistry().list().map((p) => ({ ...describePlugin(p), module: null })),
    ...own.map(({ plugin, module }) => ({ ...plugin, module })),
  ];
  out.value(all.map(({ options: _options, ...rest }) => rest));
  const rows = all.map((p) => [p.id, p.kind, p.version, p.description ?? ""]);
  for (const line of table(["plugin", "kind", "version", "what it does"], rows)) out.line(line);
  return 0;
}

async function show(name: string, { out }: Invocation): Promise<number> {
  const { ids, files } = await named(name);
  const found = ids.length > 0
    ? builtinRegistry().list().filter((p) => ids.includes(p.id)).map((p) => describePlugin(p))
    : (await inspectPlugins({ ...NOTHING, files })).map((p) => p.plugin);
  out.value(found.length === 1 ? found[0] : found);
  found.forEach((p) => describe(p).forEach((line) => out.line(line)));
  return 0;
}

function describe(p: PluginDescription): string[] {
  const own = optionRows(p.options, p.scheduled);
  const further = Object.values(p.furtherOptions).map(({ about, schema }) =>
    [`option ${about}`, optionRows(schema)] as const
  ).filter(([, rows]) => rows.length > 0);
  return [
    `${bold(p.id)}  ${p.kind} ${p.version}`,
    ...(p.description ? [p.description] : []),
    ...(p.source ? [dim(`Source: ${p.source}`)] : []),
    "",
    ...(own.length > 0 ? table(["option", "type", "default", "meaning"], own) : ["It has no options."]),
    ...further.flatMap(([title, rows]) => ["", ...table([title, "type", "default", "meaning"], rows)]),
  ];
}

/** Name, type, default and meaning of each option of a schema. */
function optionRows(schema: PluginDescription["options"], scheduled: readonly string[] = []): string[][] {
  const properties = (schema?.properties ?? {}) as Record<string, Record<string, unknown>>;
  return Object.entries(properties).map(([name, option]) => [
    name,
    typeOf(option),
    option.default === undefined ? "required" : JSON.stringify(option.default),
    `${option.description ?? ""}${scheduled.includes(name) ? " (may be scheduled)" : ""}`.trim(),
  ]);
}

/** The type of an option in words: `number, above 0, below 1`. */
function typeOf(schema: Record<string, unknown>): string {
  if (Array.isArray(schema.enum)) return schema.enum.map((x) => JSON.stringify(x)).join(" | ");
  if (Array.isArray(schema.anyOf)) return schema.anyOf.map(typeOf).join(" or ");
  if ("const" in schema) return JSON.stringify(schema.const);
  const bounds = ([
    ["minimum", "from"],
    ["exclusiveMinimum", "above"],
    ["maximum", "to"],
    ["exclusiveMaximum", "below"],
  ] as const).filter(([key]) =>
    schema[key] !== undefined && Math.abs(Number(schema[key])) < Number.MAX_SAFE_INTEGER
  );
  return [String(schema.type ?? "any"), ...bounds.map(([key, word]) => `${word} ${schema[key]}`)].join(", ");
}

async function begin(kind: string, name: string, { flags, out }: Invocation): Promise<number> {
  const found = KINDS.find(({ id, template }) => template.name === kind || id === kind);
  if (!found) {
    throw new UsageError(`there is no kind "${kind}"${didYouMean(kind, BEGINNINGS)}`, {
      hint: `Kinds are ${BEGINNINGS.join(", ")}.`,
    });
  }
  if (!NAME.test(name)) {
    throw new UsageError(`"${name}" cannot be a plugin's name`, {
      hint: "Use lower-case words joined by hyphens, as my-loss.",
    });
  }
  const path = flags.text("output") ?? `./${name}.ts`;
  if (await isTaken(path)) {
    throw new InputError("is already there", {
      where: path,
      hint: "Choose another name, or another file with --output.",
    });
  }
  await writeTextAtomically(path, newPlugin(found, name, path));
  out.value({ path, id: `me/${name}`, kind });
  out.line(`Wrote ${path}. It works as it is; change it, then:\n  limbeck plugin check ${path}`);
  return 0;
}

/** The source of a new plugin of a kind. `name` is lower-case words joined by hyphens. */
export function newPlugin({ template }: Kind, name: string, file: string): string {
  return template.source.replaceAll("NAME", name).replaceAll("SUFFIX", name.replaceAll("-", "_"))
    .replaceAll("FILE", file);
}

async function check(name: string, { flags, out }: Invocation): Promise<number> {
  const seconds = flags.number("timeout") ?? NOTHING.timeoutSeconds;
  if (!(seconds > 0)) throw new UsageError("--timeout must be above 0");
  const begun = performance.now();
  const reference = flags.text("reference");
  const found = await inspectPlugins({
    ...await named(name),
    check: true,
    reference: reference === undefined ? undefined : resolve(reference),
    options: readOptions(flags.list("set")),
    timeoutSeconds: seconds,
    onPlugin: (p) => out.line(`${bold(p.id)}  ${p.kind} ${p.version}`),
    onResult: (_, result) => resultLines(result).forEach((line) => out.line(line)),
  });
  const results = found.flatMap((p) => p.results);
  const count = (outcome: CheckResult["outcome"]) => results.filter((r) => r.outcome === outcome).length;
  const passed = count("fail") === 0;
  out.value({ passed, plugins: found });
  const time = `in ${((performance.now() - begun) / 1000).toFixed(0)} s`;
  const skipped = count("skip") > 0 ? `, ${count("skip")} not done` : "";
  out.line();
  out.line(
    passed
      ? green(`All ${count("pass")} checks passed`) + `${skipped} ${time}.`
      : red(`${count("fail")} of ${results.length} checks failed`) + `${skipped} ${time}.`,
  );
  return passed ? 0 : 1;
}

function resultLines({ check, outcome, detail, hint }: CheckResult): string[] {
  const mark = { pass: green("pass"), fail: red("FAIL"), skip: yellow("skip") }[outcome];
  const [first, ...more] = detail.split("\n");
  return [
    `  ${mark}  ${check.padEnd(52)}  ${first}`.trimEnd(),
    ...more.map((line) => `        ${line}`),
    ...(outcome === "fail" && hint ? [`        ${dim("what to do")}: ${hint}`] : []),
  ];
}

/** A built-in plugin's id, a file, or a package. */
async function named(name: string): Promise<{ ids: string[]; files: string[] }> {
  const known = builtinRegistry().list().map((p) => p.id);
  if (known.includes(name)) return { ids: [name], files: [] };
  const path = pluginSource(name, Deno.cwd());
  if (isPackage(path)) return { ids: [], files: [path] };
  if (await isFile(path)) return { ids: [], files: [path] };
  throw new InputError(`there is no plugin and no file "${name}"${didYouMean(name, known)}`, {
    hint: "`limbeck plugin list` names the built-in ones; a file is given by its path, such as ./my-loss.ts.",
  });
}

/** `name=value`, the value as JSON where it is that, else as text. */
function readOptions(sets: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(sets.map((text) => {
    const at = text.indexOf("=");
    if (at < 1) {
      throw new UsageError(`--set ${text} has no value`, { hint: "Write it as --set option=value." });
    }
    const value = text.slice(at + 1);
    try {
      return [text.slice(0, at), JSON.parse(value)];
    } catch {
      return [text.slice(0, at), value];
    }
  }));
}
