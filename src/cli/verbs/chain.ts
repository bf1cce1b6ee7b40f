/**
 * `limbeck chain`
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename, resolve } from "@std/path";
// @ts-types="../../../types/std_colors.d.ts"
import { bold } from "@std/fmt/colors";
import { InputError } from "../../base/errors.ts";
import { RecipeError } from "../../distill/recipe/parse.ts";
import { checkRecipePlugins } from "../../distill/recipe/plugins.ts";
import { ChainError, type ChainProblem, type ChainStep, loadChain } from "../../runs/chain/chain_file.ts";
import { beginStep, isDone, planChain, type PlannedStep } from "../../runs/chain/chain_plan.ts";
import { identifyPlugins } from "../../runs/child/plugin_identity.ts";
import { DATA_FOLDER, openStore, openStoreIfThere } from "../../runs/store/data_folder.ts";
import type { Store } from "../../runs/store/store.ts";
import { withLocalModels } from "../../runs/task/hub_models.ts";
import { isTask, needsGpu, taskOf } from "../../runs/task/run_recipe.ts";
import { mergeRecipeOf } from "../../runs/task/task.ts";
import type { Command, Invocation } from "../command.ts";
import { DATA_FLAG } from "../data_flag.ts";
import { HUB_FLAGS, localModel } from "../hub_models.ts";
import { PLUGIN_FLAGS } from "../setup/plugin_sources.ts";
import { builtinRegistry } from "../setup/registry.ts";
import { shownPath } from "../terminal/shown_path.ts";
import { table } from "../terminal/table.ts";
import { prepareMachine, RUN_FLAGS, watchRun } from "../terminal/watch_run.ts";

/** A step, and whether it was done before. */
interface Found extends PlannedStep {
  readonly done: boolean;
}

/** Runs several steps in order. */
export const chain: Command = {
  name: "chain",
  usage: "CHAIN",
  positional: [1, 1],
  details:
    "CHAIN is a .yaml or .json file with steps, each {name, task: distill, merge, residual or shrink, ...} with the fields of such a recipe, " +
    "or recipe: FILE. Where a model is named, step:NAME is what an earlier step left. Each step is a run in the data folder, named by the " +
    "content of all that goes into it: a step that is done is not done again, and the same command continues one that was stopped. " +
    "Ctrl-C saves and stops; a second Ctrl-C stops at once.",
  flags: {
    "dry-run": { help: "Check everything and say what is to be done; do nothing" },
    ...HUB_FLAGS,
    ...PLUGIN_FLAGS,
    ...DATA_FLAG,
    ...RUN_FLAGS,
  },
  examples: ["limbeck chain cut-and-mend.yaml", "limbeck chain cut-and-mend.yaml --dry-run"],
  async run(invocation: Invocation): Promise<number> {
    const { args: [file], flags, out } = invocation;
    const steps = await loadChain(file!);
    const modules = invocation.plugins?.map(({ path }) => path) ?? [];
    // Plugins of others are loaded in the runs' processes only, which then check as much.
    if (modules.length === 0) checkPlugins(file!, steps);
    const plugins = await identifyPlugins(modules);
    const data = resolve(flags.text("data") ?? DATA_FOLDER);
    const local: ChainStep[] = [];
    for (const { name, recipe } of steps) {
      local.push({ name, recipe: await withLocalModels(recipe, (model) => localModel(model, invocation)) });
    }
    const all = await planChain(local, { folder: data, plugins });
    if (flags.on("dry-run")) {
      using store = await openStoreIfThere(data);
      const found = await lookAt(all, store);
      show(found, invocation);
      const left = found.filter(({ done }) => !done).length;
      out.line(`${left} of ${found.length} steps are to be done. Nothing was.`);
      return 0;
    }
    using store = openStore(data);
    const planned = await lookAt(all, store);
    const left = planned.filter((step) => !step.done);
    if (left.some(({ recipe }) => needsGpu(recipe))) await prepareMachine(invocation);
    for (const [i, step] of planned.entries()) {
      const title = bold(`[${i + 1}/${planned.length}] ${step.name}`);
      if (step.done) {
        out.line(`${title}: done before`);
        continue;
      }
      const { run, resume } = await beginStep(step, { store, plugins, chain: basename(file!) });
      out.line(`${title}: ${taskOf(step.recipe)}${resume ? ", continued" : ""}`);
      const code = await watchRun(run, { resume }, invocation);
      if (code !== 0) {
        out.line("The same command goes on from here.");
        return code;
      }
    }
    show(await lookAt(all, store), invocation);
    return 0;
  },
};

/** @throws {ChainError} a loss, adapter or method that is not there, or options that it does not take */
function checkPlugins(file: string, steps: readonly ChainStep[]): void {
  const registry = builtinRegistry();
  const problems: ChainProblem[] = [];
  for (const [i, { recipe }] of steps.entries()) {
    try {
      if (!isTask(recipe)) checkRecipePlugins(recipe, registry);
      else if (recipe.task === "merge") registry.get("merge", mergeRecipeOf(recipe).method);
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      const found = error instanceof RecipeError
        ? error.problems
        : [{ path: "method", message: error.message }];
      problems.push(...found.map(({ path, message }) => ({ path: `steps.${i}.${path}`, message })));
    }
  }
  if (problems.length > 0) throw new ChainError(file, problems);
}

async function lookAt(steps: readonly PlannedStep[], store: Store | undefined): Promise<Found[]> {
  const found: Found[] = [];
  for (const step of steps) found.push({ ...step, done: store ? await isDone(step, store) : false });
  return found;
}

function show(steps: readonly Found[], { out }: Invocation): void {
  out.value({
    type: "chain",
    steps: steps.map(({ name, hash, folder, recipe, done }) => ({
      ...{ name, task: taskOf(recipe), hash, folder, done },
    })),
  });
  const rows = steps.map(({ name, folder, recipe, done }) => [
    name,
    taskOf(recipe),
    done ? "done" : "to do",
    shownPath(folder),
  ]);
  for (const line of table(["step", "task", "", "folder"], rows)) out.line(line);
}
