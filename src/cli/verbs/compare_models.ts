/**
 * What `limbeck compare` measures beside the runs themselves: models as they are, and every held-out sequence.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join, resolve } from "@std/path";
import { UsageError } from "../../base/errors.ts";
import { HeldOutSequences } from "../../distill/evaluate/held_out_sequences.ts";
import { SET_NAME, SET_NAME_FORM } from "../../distill/recipe/data_sets.ts";
import { distillationOf } from "../../runs/task/run_recipe.ts";
import type { Recipe } from "../../distill/recipe/recipe.ts";
import type { PluginModule } from "../../registry/exported_plugins.ts";
import { importName } from "../../runs/child/plugin_source.ts";
import {
  type ComparedRun,
  type Comparison,
  measurable,
  plannedModels,
} from "../../runs/compare/comparison.ts";
import { readSequences, writeSequences } from "../../runs/compare/sequences.ts";
import { readRun } from "../../runs/store/run_folder.ts";
import type { Invocation } from "../command.ts";
import { localModels } from "../hub_models.ts";
import type { Registry } from "../../registry/registry.ts";
import { registryWith } from "../setup/registry.ts";
import { measureComparedTasks } from "./compare_tasks.ts";

/**
 * The models that `--model` names; those of the hub are fetched.
 *
 * @param recipes names that are taken, also for what their runs and the models of each seed are called
 * @throws {UsageError} no NAME=PATH, a name that does not do, or one that is taken
 */
export async function readModels(
  invocation: Pick<Invocation, "flags" | "out">,
  recipes: readonly string[],
  seeds: readonly number[],
): Promise<{ name: string; path: string }[]> {
  const taken = [...recipes, ...recipes.flatMap((name) => seeds.map((seed) => `${name}-seed${seed}`))];
  const models: { name: string; path: string }[] = [];
  for (const given of invocation.flags.list("model")) {
    const [, name, path] = /^([^=]*)=(.+)$/.exec(given) ?? [];
    if (name === undefined || path === undefined) {
      throw new UsageError(`--model ${given}: expected NAME=PATH`, {
        hint: "For example --model merge=./merged",
      });
    }
    if (!SET_NAME.test(name)) throw new UsageError(`--model ${given}: a name has ${SET_NAME_FORM}`);
    const model = { name, path };
    const names = [name, ...plannedModels({ seeds, models: [model] }).map(({ file }) => file)];
    const other = names.find((name) => taken.includes(name));
    if (other) {
      throw new UsageError(`--model ${given}: something else is called ${other}; give it another name`);
    }
    taken.push(...names);
    models.push(model);
  }
  const paths = await localModels(models.map(({ path }) => path), invocation);
  return models.map(({ name }, i) => ({ name, path: resolve(paths[i]!) }));
}

/** Opens every model once, so that all that is wrong with one is said before the first run. */
export async function checkModels(
  plan: Parameters<typeof plannedModels>[0],
  recipe: Recipe,
  { plugins }: Pick<Invocation, "plugins">,
): Promise<void> {
  const models = plannedModels(plan);
  if (models.length === 0) return;
  const registry = await registryWith(plugins);
  const heldOut = await HeldOutSequences.open(recipe, registry);
  for (const { path } of models) await heldOut.check(path, registry);
}

/** Measures what is done of a comparison, where it has not been measured. */
export type MeasureComparison = (
  comparison: Comparison,
  runs: readonly ComparedRun[],
  invocation: Invocation,
) => Promise<void>;

/** Measures the student of each run that is done and each model on the held-out sets of the first recipe, and on the tasks. */
export async function measureSequences(
  comparison: Comparison,
  runs: readonly ComparedRun[],
  { out, plugins }: Invocation,
): Promise<void> {
  const { plan } = comparison;
  const registry = await registryWith(modulesOf(plan, plugins));
  await measureHeldOut(comparison, runs, registry, out);
  await measureComparedTasks(comparison, runs, registry, out);
}

async function measureHeldOut(
  comparison: Comparison,
  runs: readonly ComparedRun[],
  registry: Registry,
  out: Invocation["out"],
): Promise<void> {
  const { folder, plan } = comparison;
  const open = [];
  for (const one of measurable(comparison, runs)) {
    if (!await readSequences(folder, one.name)) open.push(one);
  }
  if (open.length === 0) return;
  const heldOut = await HeldOutSequences.open(plan.recipes[0]!.recipe, registry);
  try {
    for (const { name, run, path } of open) {
      out.line(`Measuring ${name} sequence by sequence`);
      const runPath = join(folder, name);
      const source = run
        ? { folder: runPath, recipe: distillationOf((await readRun(runPath)).recipe, runPath), registry }
        : path!;
      const found = await heldOut.measure(source, registry);
      await writeSequences(
        folder,
        name,
        found.map(({ name, sequences }) => ({
          name,
          losses: sequences.map(({ loss }) => loss),
          tokens: sequences.map(({ tokens }) => tokens),
        })),
      );
    }
  } finally {
    heldOut.close();
  }
}

/** The plugins of the comparison, also where it is resumed and none are given. */
function modulesOf({ plugins }: Comparison["plan"], given: readonly PluginModule[] = []): PluginModule[] {
  return plugins.map(({ path }) =>
    given.find((module) => module.path === path) ?? { path, load: () => import(importName(path)) }
  );
}
