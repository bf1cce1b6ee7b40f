/**
 * Which model a command is to use: a folder, a GGUF file, one of the hub, or what a run made.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { join } from "@std/path";
import { InputError, UsageError } from "../base/errors.ts";
import { findRunFolder } from "../runs/store/data_folder.ts";
import { readRun } from "../runs/store/run_folder.ts";
import { distillationOf } from "../runs/task/run_recipe.ts";
import { unmergeable } from "../distill/trained/model_adapter.ts";
import type { RunSource } from "../distill/checkpoint/run_student.ts";
import type { Adapter } from "../registry/contract.ts";
import type { Flag, Invocation } from "./command.ts";
import { DATA_FLAG } from "./data_flag.ts";
import { PLUGIN_FLAGS } from "./setup/plugin_sources.ts";
import { registryWith } from "./setup/registry.ts";
import { runPlugins } from "./setup/run_plugins.ts";
import { exists } from "../formats/files.ts";
import { HUB_FLAGS, localModel } from "./hub_models.ts";

/** Flags that name a model. */
export const MODEL_FLAGS: Readonly<Record<string, Flag>> = {
  model: { value: "MODEL", help: "Hugging Face folder, GGUF file, or hf:ORG/NAME of the hub" },
  run: { value: "RUN", help: "The model that a run made: its id, the beginning of one, last, or its folder" },
  ...HUB_FLAGS,
  ...DATA_FLAG,
  ...PLUGIN_FLAGS,
};

/**
 * The model that the flags name: a path, of one of the hub in the cache, for a run that of its merged model; or a run whose adapter no merged model can hold.
 *
 * @throws {UsageError} neither or both of `--model` and `--run`
 * @throws {InputError} a run that has no merged model, though its adapter can be merged, or one whose plugin is not named
 */
export async function namedModel(invocation: Invocation): Promise<string | RunSource> {
  const { flags } = invocation;
  const [model, run] = [flags.text("model"), flags.text("run")];
  if ((model === undefined) === (run === undefined)) {
    throw new UsageError("name one model: --model MODEL or --run RUN");
  }
  if (model !== undefined) return await localModel(model, invocation);
  return await runModel(run!, invocation);
}

/**
 * What a run made: its merged model, or the run itself where no merged model can hold its adapter.
 *
 * @param run Its id, the beginning of one, last, or its folder
 * @throws {InputError} as {@linkcode namedModel}
 */
export async function runModel(run: string, invocation: Invocation): Promise<string | RunSource> {
  const folder = await findRunFolder(run, invocation.flags.text("data"));
  const merged = join(folder, "merged");
  if (await exists(join(merged, "config.json"))) return merged;
  const { recipe: done, manifest } = await readRun(folder);
  const recipe = distillationOf(done, folder);
  const registry = await registryWith(await runPlugins(manifest, invocation));
  if (unmergeableOf({ recipe, registry })) return { folder, recipe, registry };
  const { adapter } = recipe;
  if (adapter !== "none" && !registry.find("adapter", adapter.type)) {
    throw new InputError(`the run's adapter "${adapter.type}" is of a plugin`, {
      where: folder,
      hint: `Name it: ${manifest.plugins.map(({ path }) => `--plugin ${path}`).join(" ")}`,
    });
  }
  throw new InputError("the run has no merged model", {
    where: folder,
    hint:
      "It is written when the run succeeds, unless the recipe says output.merged: false. `limbeck export --run RUN --target merged` writes it from the last checkpoint; `limbeck resume` continues a run that stopped.",
  });
}

/**
 * Path of the model that the flags name; of a run, the student with the adapter merged in.
 *
 * @throws {UsageError} neither or both of `--model` and `--run`
 * @throws {InputError} a run that has no merged model
 */
export async function modelPath(invocation: Invocation): Promise<string> {
  const model = await namedModel(invocation);
  if (typeof model === "string") return model;
  throw unmergeable(unmergeableOf(model)!);
}

/** The adapter of a run, where it cannot be merged. */
function unmergeableOf({ recipe: { adapter }, registry }: Omit<RunSource, "folder">): Adapter | undefined {
  const plugin = adapter === "none" ? undefined : registry.find("adapter", adapter.type);
  return plugin?.merge ? undefined : plugin;
}
