/**
 * `limbeck distill`
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { fromFileUrl, resolve } from "@std/path";
import type { DataAccess } from "../../distill/inputs/sample_sets.ts";
import { type OpenedRecipe, openRecipe } from "../../distill/run/open_recipe.ts";
import { loadRecipe } from "../../distill/recipe/file.ts";
import { checkRecipePlugins } from "../../distill/recipe/plugins.ts";
import type { Recipe } from "../../distill/recipe/recipe.ts";
import { InputError } from "../../base/errors.ts";
import { inputPaths, isOnHub } from "../../distill/recipe/paths.ts";
import { checkPaths, checkRecipePaths } from "../../distill/recipe/recipe_paths.ts";
import { openStore } from "../../runs/store/data_folder.ts";
import { createRun } from "../../runs/store/run_folder.ts";
import { withLocalModels } from "../../runs/task/hub_models.ts";
import type { Command, Flag, Invocation } from "../command.ts";
import { DATA_FLAG } from "../data_flag.ts";
import { HUB_FLAGS, localModel } from "../hub_models.ts";
import { distillRemote } from "./distill_remote.ts";
import { REMOTE_FLAG, remoteRuns } from "../remote_flag.ts";
import { PLUGIN_FLAGS } from "../setup/plugin_sources.ts";
import { builtinRegistry, registryWith } from "../setup/registry.ts";
import { prepareMachine, RUN_FLAGS, STOP_NOTE, watchRun } from "../terminal/watch_run.ts";

/** Flags of every verb that reads a recipe. */
export const RECIPE_FLAGS: Readonly<Record<string, Flag>> = {
  set: { value: "PATH=VALUE", many: true, help: "Change a field of the recipe, such as train.steps=100" },
  ...HUB_FLAGS,
  ...PLUGIN_FLAGS,
};

/** Distils. */
export const distill: Command = {
  name: "distill",
  usage: "[RECIPE]",
  positional: [0, 1],
  details:
    "Without a recipe, the example that comes with Limbeck is distilled: real stories by a small model whose layers were cut. " +
    STOP_NOTE,
  flags: {
    ...RECIPE_FLAGS,
    output: { value: "FOLDER", help: "Folder of this run (default limbeck-data/runs/<id>)" },
    ...DATA_FLAG,
    ...REMOTE_FLAG,
    ...RUN_FLAGS,
  },
  examples: [
    "limbeck distill",
    "limbeck distill my.yaml",
    "limbeck distill my.yaml --set train.steps=100 --set objective.0.weight=0.3",
    "limbeck distill my.yaml --plugin ./my_loss.ts --output ./my-run",
    "limbeck distill my.yaml --json > events.jsonl",
    "limbeck distill my.yaml --remote http://gpu:8787",
  ],
  async run(invocation: Invocation): Promise<number> {
    const { args, flags } = invocation;
    const remote = remoteRuns(invocation);
    if (remote) return await distillRemote(invocation, remote, examplePath);
    const recipe = await readRecipe(args[0], invocation, (written) => {
      // Plugins of others are loaded in the run's process only, which then checks as much.
      if (!invocation.plugins?.length) checkRecipePlugins(written, builtinRegistry());
    });
    const output = flags.text("output");
    if (output) recipe.output.folder = resolve(output);
    await prepareMachine(invocation);
    using store = openStore(flags.text("data"));
    const run = await createRun({
      store,
      recipe,
      plugins: invocation.plugins?.map(({ path }) => path),
    });
    return await watchRun(run, { resume: false }, invocation);
  },
};

/**
 * The recipe that was named, or the embedded example's. All that it names is there: models of the hub are fetched, once nothing else is wrong.
 *
 * @param check Throws where something is
 * @throws {InputError} with every path that is not, or a model that the hub does not give
 */
export async function readRecipe(
  path: string | undefined,
  invocation: Pick<Invocation, "flags" | "out">,
  check: (written: Recipe) => void = () => {},
): Promise<Recipe> {
  const written = await loadRecipe(path ?? examplePath(), { sets: invocation.flags.list("set") });
  check(written);
  await checkPaths(inputPaths(written).filter((path) => !isOnHub(path)));
  const recipe = await withLocalModels(written, (name) => localModel(name, invocation));
  await checkRecipePaths(recipe);
  return recipe;
}

function examplePath(): string {
  const example = new URL("../../../examples/stories/recipe.yaml", import.meta.url);
  if (example.protocol === "file:") return fromFileUrl(example);
  throw new InputError("name a recipe: the example is only in a clone of the project", {
    hint: "`limbeck init my.yaml` writes a recipe to fill in.",
  });
}

/**
 * Opens all that a recipe names, hands it to `use` and closes it again. Warnings about the data are printed, and handed on.
 *
 * @param reading Whether large files are only looked at
 * @throws {InputError} whatever is wrong with the recipe, its models, data or plugins
 */
export async function withRecipe<T>(
  invocation: Invocation,
  use: (opened: OpenedRecipe) => Promise<T>,
  reading: (recipe: Recipe) => DataAccess["reading"] & string = () => "whole",
): Promise<T> {
  const { args, out, plugins } = invocation;
  const registry = await registryWith(plugins);
  const recipe = await readRecipe(args[0], invocation, (written) => checkRecipePlugins(written, registry));
  return await openRecipe(recipe, registry, (opened) => {
    for (const { message } of opened.warnings) out.warn(message);
    return use(opened);
  }, { reading: reading(recipe) });
}
