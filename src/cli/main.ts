/**
 * The command line.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { fromFileUrl, resolve } from "@std/path";
// @ts-types="../../types/std_colors.d.ts"
import { bold } from "@std/fmt/colors";
import project from "../../deno.json" with { type: "json" };
import { didYouMean } from "../base/did_you_mean.ts";
import { UsageError } from "../base/errors.ts";
import type { PluginModule } from "../registry/exported_plugins.ts";
import { processProvider } from "../gpu/provider.ts";
import { isPackage } from "../runs/child/plugin_source.ts";
import { chooseProvider, machineProvider, readProvider } from "../runs/child/provider/choice.ts";
import { columns, type Command, commandHelp, FlagReader, readArguments } from "./command.ts";
import { pluginModules } from "./setup/plugin_sources.ts";
import { runElsewhere } from "./setup/run_elsewhere.ts";
import { prepareEnvironment } from "./setup/setup.ts";
import { isDebug, Output, processTerminal, type Terminal } from "./terminal/output.ts";

/** Verbs in the order of help. Each is loaded only when it is used. */
const VERBS: Readonly<Record<string, { summary: string; load: () => Promise<Command> }>> = {
  distill: {
    summary: "Distil a teacher into a student",
    load: async () => (await import("./verbs/distill.ts")).distill,
  },
  resume: {
    summary: "Continue a run from its last checkpoint",
    load: async () => (await import("./verbs/resume.ts")).resume,
  },
  compare: {
    summary: "Compare recipes on paired seeds",
    load: async () => (await import("./verbs/compare.ts")).compare,
  },
  init: {
    summary: "Write a recipe with every field explained",
    load: async () => (await import("./verbs/init.ts")).init,
  },
  validate: {
    summary: "Check a recipe and all that it names",
    load: async () => (await import("./verbs/validate.ts")).validate,
  },
  preview: {
    summary: "Show samples with what is learnt marked",
    load: async () => (await import("./verbs/preview.ts")).preview,
  },
  estimate: {
    summary: "Forecast memory and time of a recipe",
    load: async () => (await import("./verbs/estimate.ts")).estimate,
  },
  tune: {
    summary: "Let the device choose the kernels of a recipe's runs",
    load: async () => (await import("./verbs/tune.ts")).tune,
  },
  cache: {
    summary: "Keep what a teacher says of all samples, ahead of the runs",
    load: async () => (await import("./verbs/cache.ts")).cache,
  },
  eval: {
    summary: "Measure a model on held-out text",
    load: async () => (await import("./verbs/eval.ts")).evaluate,
  },
  generate: {
    summary: "Write text with a model",
    load: async () => (await import("./verbs/generate.ts")).generate,
  },
  export: {
    summary: "Write a model or adapter in another format",
    load: async () => (await import("./verbs/export.ts")).exportModel,
  },
  shrink: {
    summary: "Cut layers, heads and channels out of a model",
    load: async () => (await import("./verbs/shrink.ts")).shrink,
  },
  merge: {
    summary: "Merge models into one",
    load: async () => (await import("./verbs/merge.ts")).merge,
  },
  "merge-adapters": {
    summary: "Merge LoRA adapters into one, or into their base",
    load: async () => (await import("./verbs/merge_adapters.ts")).mergeAdaptersCommand,
  },
  residual: {
    summary: "Give a base model what instruction tuning made of another",
    load: async () => (await import("./verbs/residual.ts")).residual,
  },
  "extract-lora": {
    summary: "Write the difference of two models as an adapter",
    load: async () => (await import("./verbs/extract_lora.ts")).extractLoraCommand,
  },
  chain: {
    summary: "Run several steps in order, each on what earlier ones left",
    load: async () => (await import("./verbs/chain.ts")).chain,
  },
  plugin: {
    summary: "List, show, begin and check losses, adapters, merges and families",
    load: async () => (await import("./verbs/plugin.ts")).plugin,
  },
  logs: { summary: "Print what a run says", load: async () => (await import("./verbs/logs.ts")).logs },
  pause: {
    summary: "Save a run's checkpoint and end its process",
    load: async () => (await import("./verbs/cancel.ts")).pause,
  },
  cancel: { summary: "End a run for good", load: async () => (await import("./verbs/cancel.ts")).cancel },
  runs: { summary: "List, show and remove runs", load: async () => (await import("./verbs/runs.ts")).runs },
  serve: { summary: "Take runs over HTTP", load: async () => (await import("./verbs/serve.ts")).serve },
  token: {
    summary: "Make a token for a service",
    load: async () => (await import("./verbs/token.ts")).token,
  },
  doctor: {
    summary: "Check the GPU and this machine",
    load: async () => (await import("./verbs/doctor.ts")).doctor,
  },
};

/**
 * Runs a command line.
 *
 * @param loaded plugin modules that were imported for this command; found by its flags when absent
 * @returns the exit code: 0 done, 1 failed, 2 usage, 3 bad input, 4 device or memory, 5 diverged, 130 interrupted with a checkpoint
 */
export async function main(
  argv: readonly string[],
  terminal: Terminal = processTerminal(),
  loaded?: readonly PluginModule[],
): Promise<number> {
  const [verb, ...rest] = argv;
  const beforeDashes = rest.slice(0, rest.includes("--") ? rest.indexOf("--") : undefined);
  const out = new Output(terminal, beforeDashes.includes("--json"));
  try {
    if (verb === undefined || verb === "help" || verb === "--help" || verb === "-h") {
      const asked = verb === "help" ? rest[0] : undefined;
      out.line(asked === undefined ? overview() : await helpOf(asked));
      return verb === undefined ? 2 : 0;
    }
    if (verb === "--version" || verb === "-V") {
      out.line(`limbeck ${project.version} (deno ${Deno.version.deno})`);
      return 0;
    }
    const command = await findCommand(verb);
    const { args, flags } = readArguments(command, rest);
    if (flags.help) {
      new Output(terminal, false).line(await helpOf(verb));
      return 0;
    }
    const invocation = { args, flags: new FlagReader(flags), out };
    const named = invocation.flags.text("provider");
    if (named !== undefined) chooseProvider(readProvider(named, "--provider"));
    const provider = command.opensGpu ? machineProvider() : processProvider().id;
    // A library of another's is no part of this process: it is loaded into one that is made for it.
    const elsewhere = provider !== processProvider().id;
    const plugins = command.flags.plugin ? loaded ?? await pluginModules(invocation.flags) : undefined;
    const fetches = !loaded && command.loadsPlugins && plugins?.some(({ path }) => isPackage(path));
    if (elsewhere || fetches) return await runElsewhere(argv, plugins ?? [], provider);
    return await command.run({ ...invocation, ...(plugins ? { plugins } : {}) });
  } catch (error) {
    return out.error(error, isDebug());
  }
}

function findCommand(name: string): Promise<Command> {
  if (Object.hasOwn(VERBS, name)) return VERBS[name].load();
  throw new UsageError(`there is no command "${name}"${didYouMean(name, Object.keys(VERBS))}`, {
    hint: "`limbeck --help` lists the commands.",
  });
}

async function helpOf(name: string): Promise<string> {
  return commandHelp(await findCommand(name), VERBS[name].summary);
}

function overview(): string {
  return [
    `Limbeck ${project.version} distils one language model into another.`,
    "",
    `${bold("Usage:")} limbeck COMMAND [ARGUMENTS]`,
    "",
    bold("Commands:"),
    ...columns(Object.entries(VERBS).map(([name, { summary }]): [string, string] => [name, summary])),
    "",
    bold("Examples:"),
    "  limbeck distill                    distil the example that comes with Limbeck",
    "  limbeck init my.yaml               write a recipe to fill in",
    "  limbeck distill my.yaml --set train.steps=100",
    "  limbeck generate --run last --prompt 'Once upon a time'",
    "",
    "`limbeck COMMAND --help` shows a command's flags and examples.",
  ].join("\n");
}

/** \`deno task\` runs in the project's folder, but the paths that users type are relative to where they are. */
function enterCallersFolder(): void {
  const root = new URL("../../", import.meta.url);
  if (root.protocol !== "file:") return;
  try {
    const folder = Deno.env.get("INIT_CWD");
    if (folder && resolve(Deno.cwd()) === resolve(fromFileUrl(root))) Deno.chdir(folder);
  } catch {
    // Without the permission, paths are relative to the project.
  }
}

if (import.meta.main) {
  enterCallersFolder();
  prepareEnvironment();
  Deno.exit(await main(Deno.args));
}
